"""Time that `stratalens --help` and `stratalens analyze --help` take, the median of seven calls.

python bench/start.py
"""

import subprocess
import sys
import time
from statistics import median

MAX_SECONDS = 0.5


def main() -> None:
    for words in (["--help"], ["analyze", "--help"]):
        seconds = []
        for _ in range(7):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-m", "stratalens", *words], check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - started)
        print(f"stratalens {' '.join(words)}: {median(seconds):.2f} s; allowed {MAX_SECONDS}")


if __name__ == "__main__":
    main()
