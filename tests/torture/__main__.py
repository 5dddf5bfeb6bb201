"""Run the fault tests at full size on both databases, and end with a table of what they measured.

    python -m tests.torture [FRACTION] [arguments for pytest]

A FRACTION such as 0.05 makes everything smaller. Leases, sweeps and time-outs are shortened (`quickness.py`), so that
minutes do what hours do in production.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from tests.torture.quickness import QUICK

ROOT = Path(__file__).parent.parent.parent
WIDTH = 118
SIDE_BY_SIDE = ["-n", "3", "--dist", "worksteal"]


def main(arguments: list[str]) -> int:
    fraction = arguments.pop(0) if arguments and arguments[0].replace(".", "", 1).isdigit() else "1"
    shortened = ", ".join(f"{name}={value}" for name, value in QUICK.items())
    print(f"Shortened for this run: {shortened}; pauses after faults are cut to nothing.\n", flush=True)
    begun_at = time.monotonic()
    options = [f"--torture={fraction}", *arguments]
    with tempfile.TemporaryDirectory(prefix="newsroom-torture-") as folder:
        place = Path(folder)
        with (place / "output").open("wb") as output, ExitStack() as running:
            # SQLite's wait for the disk more than for a core.
            beside = running.enter_context(_started(place / "SQLite", options, output=output))
            # Most of a test is waiting for leases and time-outs, so several go side by side.
            ahead = running.enter_context(_started(place / "PostgreSQL", ["--pg", *SIDE_BY_SIDE, *options]))
            first, second = _results_of(place / "PostgreSQL", ahead), _results_of(place / "SQLite", beside)
        print((place / "output").read_text())
    results = [("PostgreSQL", result) for result in first] + [("SQLite", result) for result in second]
    return _report(results, minutes=(time.monotonic() - begun_at) / 60)


@contextmanager
def _started(
    results: Path, options: list[str], *, output: IO[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run pytest in a session of its own, so that Ctrl-C reaches it once, from here, and nothing goes on without us."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", "tests/system", *options]
    command.append(f"--basetemp={results}-files")  # other runs tidy up the usual place
    environment = os.environ | {"TORTURE_RESULTS": str(results)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait()


def _results_of(results: Path, process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    status = process.wait()
    found = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    if status not in {0, 1, 5}:  # neither passed nor failed tests, nor none to run
        found.append({"test": "pytest itself", "outcome": "failed", "seconds": 0, "figures": [], "reason": ""})
    return found


def _report(results: list[tuple[str, dict[str, Any]]], *, minutes: float) -> int:
    print("\n" + "=" * WIDTH)
    for database, result in results:
        name = result["test"].removeprefix("test_").replace("_", " ")
        print(f"{result['outcome'].upper():7} {database:10} {result['seconds']:5.0f} s  {name}"[:WIDTH])
        for words in [*result["figures"], *filter(None, [result["reason"]])]:
            print(textwrap.fill(words, WIDTH, initial_indent=" " * 10, subsequent_indent=" " * 12))
    print("=" * WIDTH)
    outcomes = [result["outcome"] for _database, result in results]
    if skipped := outcomes.count("skipped"):
        print(f"{skipped} skipped, for the reason given above")
    print(f"{minutes:.0f} minutes")
    failed = outcomes.count("failed")
    print(f"{outcomes.count('passed')} passed, {failed} failed")
    return 1 if failed or not outcomes else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    raise SystemExit(main(sys.argv[1:]))
