"""What does the distance to the mail server cost, and what do its extensions spare of it? The site alone, over SMTP.

    make bench N=2000 ROUNDS=3 ARGS="--distance 0 20 100"

The receiver answers so many milliseconds late, a round trip's worth, and offers chunks and pipelining, pipelining
alone, or neither. Workers have warmed up with it near by.
"""

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial

from newsroom.management.guard import Guard
from tests.benchmarks import contenders, report
from tests.benchmarks.metering import Cost
from tests.benchmarks.scene import Scene, Sink
from tests.processes import Processes

LATEST = report.ROOT / "var" / "bench" / "distance.json"
BEGIN, END = "<!-- begin: distance -->", "<!-- end: distance -->"
OFFERS = {"CHUNKING and PIPELINING": ("PIPELINING", "CHUNKING"), "PIPELINING alone": ("PIPELINING",), "neither": ()}
SMALL_PART = 10  # far away with neither, a digest goes to one reader in so many


@dataclass(frozen=True, slots=True)
class Result:
    milliseconds: int
    offers: str
    n: int
    rounds: int
    mails_per_s: report.Range


def run(distances: list[int], *, readers: int, rounds: int, docs: bool) -> int:
    guard = Guard()
    try:
        found = _measure(guard, distances, readers=readers, rounds=rounds)
    except (contenders.Failed, AssertionError, OSError) as error:
        print(f"FAILED  {str(error)[-2000:] or type(error).__name__}")
        return 1
    finally:
        guard.close()
    LATEST.parent.mkdir(parents=True, exist_ok=True)
    LATEST.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n")
    rows = [["", *OFFERS], *([f"{distance} ms", *_cells(found, distance)] for distance in distances)]
    words = f"mails/s, {readers} readers ({_few(readers)} far away with neither): median (least to most)"
    print(words, *(f"{row[0]:8}" + "".join(f"{cell:>26}" for cell in row[1:]) for row in rows), sep="\n")
    if docs:
        command = f'make bench N={readers} ROUNDS={rounds} ARGS="--distance {" ".join(map(str, distances))}"'
        table = ["| " + " | ".join(row) + " |" for row in rows]
        table.insert(1, "|---|" + "---|" * len(OFFERS))
        report.put_between(BEGIN, END, f"`{command}`: {words}.\n\n" + "\n".join(table))
    return 0


def _measure(guard: Guard, distances: list[int], *, readers: int, rounds: int) -> list[Result]:
    scene = Scene(guard, readers=readers)
    sinks = {name: Sink("smtp", guard, offers=offers) for name, offers in OFFERS.items()}
    cases = [(distance, name) for distance in distances for name in OFFERS]
    sizes = {case: _few(readers) if case[0] and not OFFERS[case[1]] else readers for case in cases}
    costs: dict[tuple[int, str], list[Cost]] = {case: [] for case in cases}
    for number in range(1, rounds + 1):
        for distance, name in cases:
            print(f"round {number}: {distance} ms, {name}", file=sys.stderr, end=": ", flush=True)
            scene.turn_to(sizes[distance, name])
            cost = _send(scene, sinks[name], distance / 1000)
            costs[distance, name].append(cost)
            print(f"{cost.seconds:.1f} s", file=sys.stderr, flush=True)
    return [
        Result(*case, n, rounds, report.Range.over(costs[case], lambda cost, n=n: n / cost.seconds))
        for case, n in sizes.items()
    ]


def _send(scene: Scene, sink: Sink, seconds: float) -> Cost:
    """Send a digest, half to each sending process, however small it is."""
    from django.conf import settings
    from django.test import override_settings

    scene.receiver = scene.sinks["smtp"] = sink
    half = math.ceil(scene.count / contenders.SENDERS)
    with override_settings(DELIVERY_BATCH_SIZE=min(half, settings.DELIVERY_BATCH_SIZE)):
        cost = contenders.by_site(scene, transport=Scene.smtp, beside=partial(_far_away, seconds=seconds))
    time.sleep(0.3)  # one who is mailed twice may be so only now
    contenders.refuse_wrong(sink.check(scene.readers_file))
    return cost


@contextmanager
def _far_away(scene: Scene, _site: Processes, *, seconds: float) -> Iterator[None]:
    sink = scene.receiver
    sink.move_away(seconds)
    try:
        yield
    finally:
        sink.move_away(0)


def _few(readers: int) -> int:
    return max(1, readers // SMALL_PART)


def _cells(found: list[Result], distance: int) -> list[str]:
    speeds = [each.mails_per_s for each in found if each.milliseconds == distance]
    return [f"{speed.median:.0f} ({speed.min:.0f} to {speed.max:.0f})" for speed in speeds]
