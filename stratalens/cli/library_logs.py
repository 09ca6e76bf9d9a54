"""What other libraries log is printed as a note of one line without secrets, and not at all when the run is quiet."""

import logging

from stratalens.cli.terminal import Terminal
from stratalens.files.redaction import as_printed

LIBRARIES = ("huggingface_hub", "transformers", "datasets", "fsspec")
"""Libraries that print their log lines themselves. Python prints those of all others that have no handler."""
MAX_LOG_CHARACTERS = 500


def show_library_logs(terminal: Terminal) -> None:
    """Print what libraries log, in this process, through the terminal alone.

    Their lines may hold addresses with passwords, such as that of `HF_ENDPOINT`.

    Args:
        terminal: prints warnings as notes, unless it is quiet, and errors as notes in any case.
    """
    handler = _Notes(terminal)
    logging.lastResort = handler
    for name in LIBRARIES:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.addHandler = _no_other_handler  # a library adds its own when it is imported


def _no_other_handler(hdlr: logging.Handler) -> None:
    """Take the place of `Logger.addHandler`."""


class _Notes(logging.Handler):
    """Prints log lines as notes."""

    def __init__(self, terminal: Terminal):
        super().__init__(logging.WARNING)
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # its arguments do not fit
            message = str(record.msg)
        line = as_printed(f"{record.name.split('.')[0]}: {' '.join(message.split())}")[:MAX_LOG_CHARACTERS]
        show = self._terminal.disclose if record.levelno >= logging.ERROR else self._terminal.warn
        show(line)
