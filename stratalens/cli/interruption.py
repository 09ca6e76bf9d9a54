"""An interruption (Ctrl-C) that Python drops is sent again."""

import os
import signal
import sys
import threading

REPEAT_SECONDS = 0.02
"""After this time the interruption is sent again; at once it would be dropped again."""


def repeat_interruption(dropped: "sys.UnraisableHookArgs") -> None:
    """Send an interruption again that Python drops because it came while an object was deleted; print anything else."""
    if dropped.exc_type is KeyboardInterrupt:
        later = threading.Timer(REPEAT_SECONDS, os.kill, (os.getpid(), signal.SIGINT))
        later.daemon = True
        later.start()
    else:
        sys.__unraisablehook__(dropped)
