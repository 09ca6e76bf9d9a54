"""A menu of ready-made analyses: `python run_financial_analysis.py`, also from a pipe (`echo 2 | python ...`)."""

import sys

from stratalens.cli.menu import main

if __name__ == "__main__":
    sys.exit(main())
