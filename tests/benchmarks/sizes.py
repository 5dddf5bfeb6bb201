"""Does a reader of a large digest cost more than one of a small? The site alone, at several sizes, with visitors.

    python -m tests.benchmarks --sizes 10000 100000 1000000 [--transport smtp] [--rounds 1]

Each size has a server and a database of its own, in a process of its own, so that none begins with what another left.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from newsroom.management.guard import Guard
from tests.benchmarks import contenders, report
from tests.benchmarks.metering import Cost
from tests.benchmarks.scene import Scene
from tests.processes import Processes

LATEST = report.ROOT / "var" / "bench" / "sizes.json"
BEGIN, END = "<!-- begin: sizes -->", "<!-- end: sizes -->"
TRANSPORTS = {"smtp": Scene.smtp, "mailgun": Scene.mailgun, "http-single": Scene.postmark}
SINKS = {"smtp": "smtp", "mailgun": "http", "http-single": "http"}
MOST_LEAVERS = 5000

# The marks: what a reader costs beside the smallest size, and how far memory may stray.
DEARER, MEMORY = 1.15, 0.10

COLUMNS = {
    "n": "readers",
    "freeze_s": "freeze, s",
    "mails_per_s": "mails/s",
    "cpu_s_per_1000": "CPU-s/1000",
    "db_cpu_s_per_1000": "DB CPU-s/1000",
    "cost": "CPU per reader, first = 1",
    "time": "time per reader, first = 1",
    "peak_rss_mb": "peak RSS, MB",
    "db_bytes": "database bytes/delivery",
    "wal_bytes": "log bytes/delivery",
    "sign_up": "sign-up p50 / p99, ms",
    "leave": "unsubscribe p50 / p99, ms",
}


@dataclass(frozen=True, slots=True)
class Size:
    """Medians over the rounds, the visitors' answers of the last one."""

    n: int
    rounds: int
    freeze_s: float
    mails_per_s: float
    cpu_s_per_1000: float
    db_cpu_s_per_1000: float
    peak_rss_mb: float
    db_bytes: float
    wal_bytes: float
    sink_cpu_s_per_1000: float
    sign_up: dict[str, float]
    leave: dict[str, float]

    @property
    def cost(self) -> float:
        return self.cpu_s_per_1000 + self.db_cpu_s_per_1000

    @classmethod
    def of(cls, n: int, costs: list[Cost], visits: dict[str, dict[str, float]]) -> "Size":
        def middle(name: str, per: float = 1.0) -> float:
            return round(median(getattr(cost, name) for cost in costs) / per, 4)

        return cls(
            n=n,
            rounds=len(costs),
            freeze_s=middle("freeze_seconds"),
            mails_per_s=round(n / middle("seconds"), 1),
            cpu_s_per_1000=middle("cpu_seconds", n / 1000),
            db_cpu_s_per_1000=middle("db_cpu_seconds", n / 1000),
            peak_rss_mb=middle("peak_rss_mb"),
            db_bytes=middle("db_bytes", n),
            wal_bytes=middle("wal_bytes", n),
            sink_cpu_s_per_1000=middle("sink_cpu_seconds", n / 1000),
            **visits,
        )


def run(sizes: list[int], *, transport: str, rounds: int, docs: bool) -> int:
    found: list[Size] = []
    for size in sizes:
        print(f"{size:,} readers, {transport}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "tests.benchmarks.sizes", str(size), transport, str(rounds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=report.ROOT)
        if done.returncode:
            print(f"FAILED  {size:,} readers: {done.stdout.strip()[-2000:]}")
            return 1
        found.append(Size(**json.loads(done.stdout.splitlines()[-1])))
    LATEST.parent.mkdir(parents=True, exist_ok=True)
    LATEST.write_text(json.dumps([asdict(each) | {"transport": transport} for each in found], indent=2) + "\n")
    rows = [[heading, *(_cell(each, name, found[0]) for each in found)] for name, heading in COLUMNS.items()]
    print("\n".join(f"{row[0]:28}" + "".join(f"{cell:>22}" for cell in row[1:]) for row in rows))
    failures = list(_too_dear(found))
    print("\n".join(f"NOT REACHED  {words}" for words in failures) or "cost per reader and memory as they should be")
    if docs:
        table = ["| " + " | ".join(row) + " |" for row in rows]
        table.insert(1, "|---|" + "---|" * len(found))
        command_line = f'make bench ROUNDS={rounds} ARGS="--transport {transport} --sizes {" ".join(map(str, sizes))}"'
        report.put_between(BEGIN, END, f"`{command_line}`: medians.\n\n" + "\n".join(table))
    return 1 if failures else 0


def _too_dear(found: list[Size]) -> Iterator[str]:
    first = found[0]
    for each in found[1:]:
        if each.cost > first.cost * DEARER:
            times = each.cost / first.cost
            yield f"a reader of {each.n:,} costs {times:.2f} times one of {first.n:,} (at most {DEARER})"
        if abs(each.peak_rss_mb - first.peak_rss_mb) > first.peak_rss_mb * MEMORY:
            held = f"{each.peak_rss_mb:.0f} MB, at {first.n:,} {first.peak_rss_mb:.0f} MB"
            yield f"memory at {each.n:,} readers is {held}"


def _cell(each: Size, name: str, first: Size) -> str:
    match name:
        case "n":
            return f"{each.n:,}"
        case "cost":
            return f"{each.cost / first.cost:.2f}" if first.cost else "-"
        case "time":
            return f"{first.mails_per_s / each.mails_per_s:.2f}"
        case "sign_up" | "leave":
            times = getattr(each, name)
            return f"{times['p50_ms']:.0f} / {times['p99_ms']:.0f} (n={times['n']:.0f})"
        case "mails_per_s" | "peak_rss_mb" | "db_bytes" | "wal_bytes":
            return f"{getattr(each, name):,.0f}"
    return f"{getattr(each, name):.3f}"


def measure(size: int, *, transport: str, rounds: int) -> Size:
    """Send so many digests to so many readers, with visitors beside each."""
    guard = Guard()
    try:
        scene = Scene(guard, readers=size)
        sink = scene.receiver = scene.sinks[SINKS[transport]]
        leavers = scene.folder / "leavers"
        costs: list[Cost] = []
        visits: dict[str, dict[str, float]] = {}
        for _ in range(rounds):
            scene.write_readers()
            leavers.write_text("")
            beside = partial(_visited, leavers=leavers, visits=visits)
            cost = contenders.by_site(scene, transport=TRANSPORTS[transport], beside=beside)
            costs.append(cost)
            contenders.refuse_wrong(sink.check(scene.readers_file, leavers))
            print(f"{size:,}: {cost.seconds:.1f} s, frozen in {cost.freeze_seconds:.2f} s", file=sys.stderr, flush=True)
        return Size.of(size, costs, visits)
    finally:
        guard.close()


@contextmanager
def _visited(scene: Scene, site: Processes, *, leavers: Path, visits: dict[str, dict[str, float]]) -> Iterator[None]:
    """Let visitors sign up and leave, at a web server as production has it, until the digest is out."""
    site.env |= {"REQUESTS_PER_NETWORK_PER_HOUR": "1000000000", "FORM_MINIMUM_FILL_SECONDS": "0"}
    url, tokens = site.web(), scene.folder / "tokens"
    _write_tokens(scene, tokens)
    module = [sys.executable, "-m", "tests.benchmarks.visitors"]
    visitors = subprocess.Popen(
        [*module, url, scene.newsletter.slug, str(tokens), str(leavers)],
        cwd=report.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    scene.guard.watch(visitors)  # type: ignore[arg-type,unused-ignore]
    assert visitors.stdin is not None and visitors.stdout is not None
    try:
        assert visitors.stdout.readline() == "ready\n"
        visitors.stdin.write("go\n")
        visitors.stdin.flush()
        yield
        visitors.stdin.close()
        visits.update(json.loads(visitors.stdout.read()))
    finally:
        visitors.kill()
        visitors.wait()
        scene.guard.forget(visitors)  # type: ignore[arg-type,unused-ignore]


def _write_tokens(scene: Scene, tokens: Path) -> None:
    from subscriptions import links

    rows: list[Any] = scene.watcher.execute(
        "SELECT address, subscriptions_subscription.uuid FROM subscriptions_subscription"
        " JOIN subscriptions_subscriber ON subscriptions_subscriber.id = subscriber_id"
        " WHERE newsletter_id = %s AND state = 'active' ORDER BY random() LIMIT %s",
        [scene.newsletter.pk, min(MOST_LEAVERS, max(1, scene.count // 20))],
    ).fetchall()
    tokens.write_text("\n".join(f"{address} {links.unsubscribe_token(uuid)}" for address, uuid in rows))


if __name__ == "__main__":
    try:
        print(json.dumps(asdict(measure(int(sys.argv[1]), transport=sys.argv[2], rounds=int(sys.argv[3])))))
    except (contenders.Failed, AssertionError) as error:
        print(str(error)[-2000:] or type(error).__name__)
        raise SystemExit(1) from None
