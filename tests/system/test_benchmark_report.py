"""The benchmark's table says how each way stands to the plain one, and which goals are reached."""

from dataclasses import replace

import pytest

from tests.benchmarks import report
from tests.benchmarks.metering import Cost

PLAIN = Cost(seconds=4.0, cpu_seconds=4.0, db_cpu_seconds=0.0, peak_rss_mb=90.0, statements=2)
FAST = Cost(seconds=0.08, cpu_seconds=0.03, db_cpu_seconds=0.02, peak_rss_mb=120.0, statements=100)


def make_results(**changes):
    """All as it should be, but for what changes."""
    costs = {
        "smtp": FAST,
        "mailgun": replace(FAST, seconds=1000 / 15_000),
        "http-single": replace(PLAIN, cpu_seconds=2.6, peak_rss_mb=100.0),
        "loop": PLAIN,
        "anymail-bare": replace(PLAIN, cpu_seconds=2.0),
    }
    return [
        report.Result.of(name, 1000, [replace(cost, **changes.get(name.replace("-", "_"), {}))])
        for name, cost in costs.items()
    ]


def test_goals_are_reached_at_their_marks():
    found = report.goals(make_results())

    assert len(found) == 5
    assert all(goal.is_reached for goal in found)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"smtp": {"seconds": 0.081}}, "NOT reached: smtp, mails/s ÷ loop ≥ 50: 49.4"),
        ({"smtp": {"db_cpu_seconds": 0.03}}, "NOT reached: smtp, CPU-s/1000 with PostgreSQL's ≤ 0.05: 0.0600"),
        ({"mailgun": {"seconds": 0.1}}, "NOT reached: mailgun, mails/s ≥ 15,000: 10,000"),
        ({"http_single": {"cpu_seconds": 2.62}}, "NOT reached: http-single, CPU ÷ anymail-bare ≤ 1.3: 1.31"),
        ({"mailgun": {"peak_rss_mb": 121.0}}, "NOT reached: the site's largest worker, MB ≤ 120: 121"),
    ],
)
def test_a_goal_that_is_missed_is_named(changes, said):
    text = report.as_text(make_results(**changes), rounds=1)

    assert [line for line in text.splitlines() if line.startswith("NOT")] == [said]


def test_a_choice_of_ways_is_held_against_what_ran():
    alone = [each for each in make_results() if each.name in {"smtp", "http-single"}]

    assert [goal.words for goal in report.goals(alone)] == [
        "smtp, CPU-s/1000 with PostgreSQL's",
        "the site's largest worker, MB",
    ]


def test_the_ratios_stand_beside_the_figures():
    lines = report.as_text(make_results(), rounds=1).splitlines()

    cells = {line.split()[0]: line.split()[-3:] for line in lines if line.startswith(("smtp ", "http-single "))}
    assert cells["http-single"] == ["1", "0.65", "1.3"]
    assert cells["smtp"][-2:] == ["50", "0.0075"]
