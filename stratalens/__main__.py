"""Run the command line as `python -m stratalens`."""

from stratalens.cli.main import entry_point

entry_point()
