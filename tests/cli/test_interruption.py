"""An interruption that Python drops is not lost."""

import subprocess
import sys

DROPPED = """
import sys, time
from stratalens.cli.interruption import repeat_interruption

class Deleted:
    def __del__(self):
        raise KeyboardInterrupt

sys.unraisablehook = repeat_interruption
try:
    Deleted()
    time.sleep(20)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interruption_while_an_object_is_deleted_comes_again():
    done = subprocess.run([sys.executable, "-c", DROPPED], capture_output=True, text=True, check=True, timeout=15)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_an_interruption_after_the_work_changes_nothing(tmp_path):
    """While Python tidies up after a command, which takes long once torch is loaded, Ctrl-C is not a failure."""
    code = (
        "import atexit, os, signal, sys, time\n"
        "from stratalens.cli import main\n"
        "main.main = lambda: 0\n"
        "atexit.register(lambda: (os.kill(os.getpid(), signal.SIGINT), time.sleep(0.2)))\n"
        "main.entry_point()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
