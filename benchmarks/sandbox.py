"""``python -m benchmarks.sandbox``: programs a second in the sandbox, at 1 and 2 workers, beside a container for each.

Trivial code: what is measured is the walls. The peer starts a bubblewrap and a Python for each program, with the same
namespaces and files and without our limits and filter, so it does less.
"""

import argparse
import os
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from data_prep.sandbox.isolation import bwrap_command
from data_prep.sandbox.pool import Sandbox

PROGRAM = "print(sum(range(10)))"


def ours(workers: int, number: int) -> float:
    """Seconds for `number` programs in a pool of `workers`, its interpreters running."""
    with Sandbox(workers) as sandbox:
        list(sandbox.run_many([PROGRAM] * 2 * workers))
        start = time.perf_counter()
        outcomes = list(sandbox.run_many([PROGRAM] * number))
        seconds = time.perf_counter() - start
    assert all(outcome.stdout == "45\n" and outcome.ok for outcome in outcomes)
    return seconds


def each(workers: int, number: int) -> float:
    """Seconds for `number` programs, a bubblewrap each, `workers` at a time."""

    def run(_: int) -> bytes:
        information, write = os.pipe()
        command = bwrap_command([], write, 0)
        command = [*command[: command.index("--")], "--", "/python/bin/python", "-s", "-B", "-c", PROGRAM]
        try:
            return subprocess.run(command, stdout=subprocess.PIPE, pass_fds=[write], env={}, check=True).stdout
        finally:
            os.close(information)
            os.close(write)

    start = time.perf_counter()
    with ThreadPoolExecutor(workers) as threads:
        assert set(threads.map(run, range(number))) == {b"45\n"}
    return time.perf_counter() - start


def main() -> None:
    """Prints a markdown table: medians over interleaved rounds, and the slowest and fastest round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(arguments.rounds):
        for workers in (1, 2):
            for name, run, share in (("warm pool", ours, 1), ("a bubblewrap each", each, 5)):
                number = arguments.programs // share
                rates.setdefault((name, workers), []).append(number / run(workers, number))
    print("| programs a second | workers | median | slowest | fastest |\n|---|---:|---:|---:|---:|")
    for (name, workers), values in rates.items():
        print(f"| {name} | {workers} | {statistics.median(values):.0f} | {min(values):.0f} | {max(values):.0f} |")
    print(f"{arguments.rounds} rounds of {arguments.programs} programs; {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
