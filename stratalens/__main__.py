"""`python -m stratalens`."""

from stratalens.cli import entry_point

entry_point()
