"""Run the multi-layer analysis as a script: `python multi_layer_financial_analysis.py --layers 4 10 16 --top_n 30`."""

import sys

from stratalens.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["analyze", *sys.argv[1:]]))
