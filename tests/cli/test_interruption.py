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
