"""How long `toolledger --help` takes, which should be under 0.3 s: `python -m tests.benchmarks.bench_help`."""

import statistics
import subprocess
import sys
import time


def took_s() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "deploy.cli.main", "--help"], capture_output=True, check=True)
    return time.perf_counter() - started


def main() -> None:
    took = sorted(took_s() for _ in range(10))
    print(f"toolledger --help: {took[0]:.3f} s at best, {statistics.median(took):.3f} s median")


if __name__ == "__main__":
    main()
