"""The result as a table, as JSON, and as a picture."""

import json
import math
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from tests.benchmarks.metering import Cost
from tests.processes import ROOT

LATEST = ROOT / "var" / "bench" / "latest.json"
PAGE = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "performance.svg"
BEGIN, END = "<!-- begin: make bench -->", "<!-- end: make bench -->"

HEADINGS = {
    "mails_per_s": "mails/s",
    "cpu_s_per_1000": "CPU-s/1000",
    "db_cpu_s_per_1000": "DB CPU-s/1000",
    "peak_rss_mb": "peak RSS, MB",
    "sql_per_1000": "SQL/1000",
    "sink_cpu_s_per_1000": "receiver CPU-s/1000",
}
DIGITS = {"mails_per_s": 0, "peak_rss_mb": 0, "sql_per_1000": 0}  # the others have 3
RATIOS = {
    "mails/s ÷ loop": ("mails_per_s", "loop"),
    "CPU ÷ loop": ("cpu_s_per_1000", "loop"),
    "CPU ÷ anymail-bare": ("cpu_s_per_1000", "anymail-bare"),
}
# So much of the time busy, the receiver is what was measured.
BUSY = 0.9
OURS = {"smtp", "mailgun", "http-single"}
HTTP = {"mailgun", "http-single"}


@dataclass(frozen=True, slots=True)
class Range:
    median: float
    min: float
    max: float

    @classmethod
    def over(cls, costs: Sequence[Cost], figure: Callable[[Cost], float]) -> "Range":
        figures = [round(figure(cost), 4) for cost in costs]
        return cls(round(median(figures), 4), min(figures), max(figures))


@dataclass(frozen=True, slots=True)
class Result:
    name: str
    n: int
    mails_per_s: Range
    cpu_s_per_1000: Range
    db_cpu_s_per_1000: Range
    peak_rss_mb: Range
    sql_per_1000: Range
    sink_cpu_s_per_1000: Range

    @property
    def is_limited_by_sink(self) -> bool:
        return self.mails_per_s.median * self.sink_cpu_s_per_1000.median / 1000 > BUSY

    @classmethod
    def of(cls, name: str, n: int, costs: Sequence[Cost]) -> "Result":
        return cls(
            name=name,
            n=n,
            mails_per_s=Range.over(costs, lambda cost: n / cost.seconds),
            cpu_s_per_1000=Range.over(costs, lambda cost: cost.cpu_seconds / n * 1000),
            db_cpu_s_per_1000=Range.over(costs, lambda cost: cost.db_cpu_seconds / n * 1000),
            peak_rss_mb=Range.over(costs, lambda cost: cost.peak_rss_mb),
            sql_per_1000=Range.over(costs, lambda cost: cost.statements / n * 1000),
            sink_cpu_s_per_1000=Range.over(costs, lambda cost: cost.sink_cpu_seconds / n * 1000),
        )


@dataclass(frozen=True, slots=True)
class Goal:
    """What is to be reached, `figure` being at least, or at most, the `mark`."""

    words: str
    figure: float
    mark: float
    is_at_most: bool = False

    @property
    def is_reached(self) -> bool:
        return self.figure <= self.mark if self.is_at_most else self.figure >= self.mark

    def __str__(self) -> str:
        sign = "≤" if self.is_at_most else "≥"
        digits = max(0, 2 - math.floor(math.log10(self.mark)))  # so that what is just missed does not look like it
        found = f"{self.figure:,.{digits}f}"
        return f"{'reached' if self.is_reached else 'NOT reached'}: {self.words} {sign} {self.mark:,g}: {found}"


def goals(results: Sequence[Result]) -> list[Goal]:
    """Return those that can be said of the contenders that ran."""
    by_name = {each.name: each for each in results}
    found = []
    if smtp := by_name.get("smtp"):
        if (faster := ratio(smtp, "mails_per_s", by_name.get("loop"))) is not None:
            found.append(Goal("smtp, mails/s ÷ loop", faster, 50))
        cpu = smtp.cpu_s_per_1000.median + smtp.db_cpu_s_per_1000.median
        found.append(Goal("smtp, CPU-s/1000 with PostgreSQL's", cpu, 0.05, is_at_most=True))
    if mailgun := by_name.get("mailgun"):
        found.append(Goal("mailgun, mails/s", mailgun.mails_per_s.median, 15_000))
    dearer = ratio(by_name.get("http-single"), "cpu_s_per_1000", by_name.get("anymail-bare"))
    if dearer is not None:
        found.append(Goal("http-single, CPU ÷ anymail-bare", dearer, 1.3, is_at_most=True))
    if ours := [each.peak_rss_mb.max for each in results if each.name in OURS]:
        found.append(Goal("the site's largest worker, MB", max(ours), 120, is_at_most=True))
    return found


def ratio(result: Result | None, figure: str, other: Result | None) -> float | None:
    """Return how many times the other's figure a result's is, by their medians; None where there is none."""
    if result is None or other is None:
        return None
    found, base = getattr(result, figure).median, getattr(other, figure).median
    return found / base if base else None


def write_json(results: Sequence[Result]) -> None:
    LATEST.parent.mkdir(parents=True, exist_ok=True)
    LATEST.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")


def as_text(results: Sequence[Result], *, readers: int, rounds: int) -> str:
    rows = [["name", "readers", *HEADINGS.values(), *RATIOS], *_rows(results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        row[0].ljust(widths[0]) + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    lines += map(str, goals(results))
    lines += [f"{each.name}: the receiver was busy all the time" for each in results if each.is_limited_by_sink]
    return "\n".join([f"N={readers}, {rounds} rounds: median (least to most)", *lines])


def _rows(results: Sequence[Result]) -> list[list[str]]:
    return [
        [each.name, f"{each.n:,}", *(_cell(each, figure) for figure in HEADINGS), *_ratios(each, results)]
        for each in results
    ]


def _ratios(result: Result, results: Sequence[Result]) -> list[str]:
    """Say how a result stands to the others' ways; only what goes over HTTP is compared with another that does."""
    by_name = {each.name: each for each in results}
    found = []
    for figure, name in RATIOS.values():
        is_alike = name == "loop" or result.name in HTTP
        value = ratio(result, figure, by_name.get(name)) if is_alike else None
        found.append("" if value is None else f"{value:.3g}")
    return found


def _cell(result: Result, figure: str) -> str:
    found: Range = getattr(result, figure)
    values = [f"{value:.{DIGITS.get(figure, 3)}f}" for value in (found.median, found.min, found.max)]
    return f"{values[0]} ({values[1]} to {values[2]})"


def write_docs(results: Sequence[Result], *, command: str) -> None:
    """Put table and picture between the marks of docs/performance.md."""
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}"
    table = [
        f"`{command}` on {machine}: median (least to most).",
        "",
        "| | readers | " + " | ".join([*HEADINGS.values(), *RATIOS]) + " |",
        "|---|---|" + "---|" * (len(HEADINGS) + len(RATIOS)),
        *(f"| `{row[0]}` | " + " | ".join(row[1:]) + " |" for row in _rows(results)),
        "",
        *(f"- {goal}" for goal in goals(results)),
        *(f"- `{each.name}`: the receiver was busy all the time" for each in results if each.is_limited_by_sink),
        "",
        f"![Mails per second of each, on a logarithmic scale]({PICTURE.name})",
    ]
    put_between(BEGIN, END, "\n".join(table))
    PICTURE.write_text(as_svg(results))


def put_between(begin: str, end: str, words: str) -> None:
    """Replace what stands between two marks of docs/performance.md."""
    before, found, rest = PAGE.read_text().partition(begin)
    _old, found_too, after = rest.partition(end)
    assert found and found_too, f"{PAGE.name} has no place for it: {begin} … {end}"
    PAGE.write_text(f"{before}{begin}\n\n{words}\n\n{end}{after}")


ROW, LEFT, WIDTH = 34, 170, 760


def as_svg(results: Sequence[Result]) -> str:
    """Draw mails per second as bars, on a logarithmic scale from 10, with the range as a line."""
    top = max(result.mails_per_s.max for result in results)
    scale = (WIDTH - LEFT - 90) / math.log10(max(top, 100) / 10)
    rows = "".join(_bar(result, 16 + ROW * index, scale) for index, result in enumerate(results))
    style = (
        "text{font:14px sans-serif;fill:#222}.ours{fill:#0b6e4f}.other{fill:#8a8f98}line{stroke:#222;stroke-width:2}"
        "@media(prefers-color-scheme:dark){text{fill:#eee}.ours{fill:#3ecf9b}line{stroke:#eee}}"
    )
    height = 32 + ROW * len(results)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="Mails per second">\n<style>{style}</style>\n{rows}</svg>\n'
    )


def _bar(result: Result, y: int, scale: float) -> str:
    speed = result.mails_per_s
    end, low, high = (LEFT + scale * math.log10(max(value, 10) / 10) for value in (speed.median, speed.min, speed.max))
    kind = "ours" if result.name in OURS else "other"
    middle = y + 11
    return (
        f'<text x="{LEFT - 8}" y="{y + 16}" text-anchor="end">{result.name}</text>'
        f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" height="22"/>'
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
        f'<text x="{max(end, high) + 8:.1f}" y="{y + 16}">{speed.median:,.0f}</text>\n'
    )
