"""Choose an analysis from a menu: `python run_financial_analysis.py`, also with piped input (`echo 2 | python ...`)."""

import sys

from stratalens.cli.menu import main

if __name__ == "__main__":
    sys.exit(main())
