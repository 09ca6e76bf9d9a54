"""Time that `stratalens --help` and `stratalens analyze --help` take to answer, the median of several.

python bench/start.py
"""

import subprocess
import sys
import time
from statistics import median

ALLOWED_SECONDS = 0.5


def main() -> None:
    for words in (["--help"], ["analyze", "--help"]):
        seconds = []
        for _ in range(7):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-m", "stratalens", *words], check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - started)
        print(f"stratalens {' '.join(words)}: {median(seconds):.2f} s; allowed {ALLOWED_SECONDS}")


if __name__ == "__main__":
    main()
