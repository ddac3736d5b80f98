"""The swap-out plan's own command line; the same as ``rerank-canary benchmark``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # this checkout, whatever else is installed

from proxy.benchmark_cli import benchmark

if __name__ == "__main__":
    benchmark()
