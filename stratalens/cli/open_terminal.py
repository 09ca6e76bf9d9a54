"""Open the terminal only when a command needs it: it imports the libraries that print."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stratalens.cli.terminal import Terminal


def open_terminal(quiet: bool) -> "Terminal":
    """Make the terminal of a run, through which other libraries print as well."""
    from stratalens.cli.library_logs import show_library_logs
    from stratalens.cli.terminal import Terminal

    terminal = Terminal(quiet)
    show_library_logs(terminal)
    return terminal
