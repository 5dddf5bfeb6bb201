"""Measure what sending a digest costs, side by side with what one would use otherwise.

    python -m tests.benchmarks [--readers N] [--same-readers] [--rounds N] [--only NAME ...] [--month-day] [--docs]
    python -m tests.benchmarks --sizes N ... [--transport NAME] [--rounds N] [--docs]
    python -m tests.benchmarks --distance MS ... [--readers N] [--rounds N] [--docs]
    python -m tests.benchmarks --explain [--readers N] [--docs]

Each round runs every contender once, so that a change of the machine's mood touches all. Ways that go one by one send
to a part of the digest's readers only, unless all are to have the same. The site runs with its default
settings; a variable of its own, such as DELIVERY_CALL_SIZE=1000, is taken from the environment. With --docs the table
and its picture are written into docs/performance.md.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from newsroom.management.guard import Guard
from tests.benchmarks import contenders, distance, plans, report, signups, sizes
from tests.benchmarks.metering import Cost
from tests.benchmarks.scene import Scene


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description="Measure what sending a digest costs.")
    parser.add_argument(
        "--readers",
        type=int,
        help="how many readers the digest has: 100,000; 1,000,000 to explain, 2,000 far away, 3,000 who sign up",
    )
    parser.add_argument("--same-readers", action="store_true", help="send to all of them by each way, however slow")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is run")
    parser.add_argument("--only", nargs="+", choices=contenders.CONTENDERS, help="run these alone")
    parser.add_argument("--month-day", action="store_true", help="the day a month on which each reader's mail is noted")
    parser.add_argument("--docs", action="store_true", help="write the result into docs/performance.md")
    parser.add_argument("--sizes", nargs="+", type=int, help="the site alone, at these numbers of readers side by side")
    parser.add_argument("--transport", choices=sizes.TRANSPORTS, default="smtp", help="how it sends then")
    parser.add_argument("--distance", nargs="+", type=int, help="SMTP to servers so many milliseconds away")
    parser.add_argument("--explain", action="store_true", help="print the plans of all hot queries")
    parser.add_argument("--signups", nargs="*", choices=signups.COMMANDS, help="sign-ups instead, by these servers")
    arguments = parser.parse_args(words)
    if arguments.readers is None:
        arguments.readers = _usual_readers(arguments)
    if arguments.readers < 1 or arguments.rounds < 1:
        parser.error("There is at least one reader and one round.")
    return arguments


def _usual_readers(arguments: argparse.Namespace) -> int:
    if arguments.signups is not None:
        return 3000
    if arguments.explain:
        return 1_000_000
    return 2000 if arguments.distance else 100_000


def main() -> int:
    arguments = parse()
    if arguments.signups is not None:
        return signups.run(arguments.readers, rounds=arguments.rounds, servers=arguments.signups)
    if arguments.explain:
        return plans.run(arguments.readers, docs=arguments.docs)
    if arguments.sizes:
        return sizes.run(arguments.sizes, transport=arguments.transport, rounds=arguments.rounds, docs=arguments.docs)
    if arguments.distance:
        return distance.run(arguments.distance, readers=arguments.readers, rounds=arguments.rounds, docs=arguments.docs)
    guard = Guard()
    try:
        return _measure(guard, arguments)
    finally:
        guard.close()


def _measure(guard: Guard, arguments: argparse.Namespace) -> int:
    begun_at = time.monotonic()
    readers = readers_of_each(arguments)
    costs: dict[str, list[Cost]] = {name: [] for name in readers}
    failures: dict[str, str] = {}
    scene = Scene(guard, readers=arguments.readers, is_month_day=arguments.month_day)
    for count in set(readers.values()):
        scene.turn_to(count)  # all are there before the first begins
    print(f"a digest of {scene.digest_bytes / 1000:.0f} kB, N={arguments.readers}", file=sys.stderr, flush=True)
    for number in range(1, arguments.rounds + 1):
        for name, count in readers.items():
            if name not in failures:
                scene.turn_to(count)
                _run(name, scene, costs, failures)
                print(f"round {number}: {name:20} {_in_short(costs, failures, name)}", file=sys.stderr, flush=True)
    results = [report.Result.of(name, count, costs[name]) for name, count in readers.items() if name not in failures]
    report.write_json(results)
    print(report.as_text(results, readers=arguments.readers, rounds=arguments.rounds))
    for name, words in failures.items():
        print(f"FAILED  {name}: {words}")
    print(f"{(time.monotonic() - begun_at) / 60:.1f} minutes; also in {report.LATEST.relative_to(report.ROOT)}")
    if arguments.docs and not failures:
        report.write_docs(results, command=command_line(arguments))
    return 1 if failures else 0


def readers_of_each(arguments: argparse.Namespace) -> dict[str, int]:
    """Return the contenders in their turn, and to how many readers each sends."""
    chosen = {name: contenders.CONTENDERS[name] for name in arguments.only or contenders.CONTENDERS}
    return {
        name: arguments.readers if arguments.same_readers else contender.share_of(arguments.readers)
        for name, contender in chosen.items()
    }


def command_line(arguments: argparse.Namespace) -> str:
    """Return what one types to have the same measured again."""
    words = [f"--{name}" for name in ("same-readers", "month-day") if getattr(arguments, name.replace("-", "_"))]
    words += ["--only", *arguments.only] if arguments.only else []
    options = f' ARGS="{" ".join(words)}"' if len(words) > 1 else "".join(f" ARGS={word}" for word in words)
    return f"make bench N={arguments.readers} ROUNDS={arguments.rounds}{options}"


def _run(name: str, scene: Scene, costs: dict[str, list[Cost]], failures: dict[str, str]) -> None:
    try:
        costs[name].append(contenders.run(name, scene))
    except (
        contenders.Failed,
        AssertionError,
        OSError,
    ) as error:  # one that fails must not keep the others from their turn
        failures[name] = str(error)[-2000:] or type(error).__name__


def _in_short(costs: dict[str, list[Cost]], failures: dict[str, str], name: str) -> str:
    return "FAILED" if name in failures else f"{costs[name][-1].seconds:.1f} s"


if __name__ == "__main__":
    raise SystemExit(main())
