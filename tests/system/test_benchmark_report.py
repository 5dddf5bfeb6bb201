"""The benchmark's table says to how many each way sent, how it stands to the plain one, and which goals are reached."""

import io
import json
from dataclasses import replace

import pytest

from tests.benchmarks import __main__ as bench
from tests.benchmarks import report
from tests.benchmarks.drivers import protocol
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
    text = report.as_text(make_results(**changes), readers=1000, rounds=1)

    assert [line for line in text.splitlines() if line.startswith("NOT")] == [said]


def test_a_choice_of_ways_is_held_against_what_ran():
    alone = [each for each in make_results() if each.name in {"smtp", "http-single"}]

    assert [goal.words for goal in report.goals(alone)] == [
        "smtp, CPU-s/1000 with PostgreSQL's",
        "the site's largest worker, MB",
    ]


def test_the_ratios_stand_beside_the_figures():
    lines = report.as_text(make_results(), readers=1000, rounds=1).splitlines()

    cells = {line.split()[0]: line.split()[-3:] for line in lines if line.startswith(("smtp ", "http-single "))}
    assert cells["http-single"] == ["1", "0.65", "1.3"]
    assert cells["smtp"][-2:] == ["50", "0.0075"]


def make_uneven_results():
    """The fast way sent to a hundred times as many, at the same price a mail as before."""
    many = replace(FAST, seconds=8.0, cpu_seconds=3.0, db_cpu_seconds=2.0, statements=10_000)
    return [report.Result.of("smtp", 100_000, [many]), report.Result.of("loop", 1000, [PLAIN])]


def test_ways_that_sent_to_different_numbers_are_compared_by_the_mail():
    text = report.as_text(make_uneven_results(), readers=100_000, rounds=1)

    title, names, *rows = text.splitlines()
    assert title.startswith("N=100000, 1 rounds")
    assert names.split()[:2] == ["name", "readers"]
    cells = {row.split()[0]: row.split() for row in rows}
    assert (cells["smtp"][1], cells["loop"][1]) == ("100,000", "1,000")
    assert cells["smtp"][-2:] == ["50", "0.0075"]


def test_each_way_is_kept_with_the_number_of_its_own_readers(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "LATEST", tmp_path / "latest.json")

    report.write_json(make_uneven_results())

    kept = json.loads(report.LATEST.read_text())
    assert [(each["name"], each["n"]) for each in kept] == [("smtp", 100_000), ("loop", 1000)]


def test_the_page_gets_the_command_and_each_ways_readers(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(report, "PICTURE", tmp_path / "picture.svg")
    report.PAGE.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")

    report.write_docs(make_uneven_results(), command="make bench N=100000 ROUNDS=1")

    lines = report.PAGE.read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    assert [row[:2] for row in rows if row[0] != "---"] == [["", "readers"], ["`smtp`", "100,000"], ["`loop`", "1,000"]]
    assert len({len(row) for row in rows}) == 1
    assert any(line.startswith("`make bench N=100000 ROUNDS=1` on ") for line in lines)
    assert (lines[0], lines[-1], "old" in lines) == ("before", "after", False)


@pytest.mark.parametrize(
    ("words", "fast", "slow"),
    [
        ([], 100_000, 6000),
        (["--readers", "300"], 300, 300),
        (["--readers", "6001"], 6001, 6000),
        (["--readers", "1000000"], 1_000_000, 50_000),
        (["--readers", "1000000", "--same-readers"], 1_000_000, 1_000_000),
    ],
)
def test_who_goes_one_by_one_sends_to_a_part_of_the_readers(words, fast, slow):
    readers = bench.readers_of_each(bench.parse(words))

    hasty = {"smtp", "mailgun", "ceiling-smtp"}
    assert len(readers) == 9
    assert readers == {name: fast if name in hasty else slow for name in readers}


def test_a_choice_of_ways_is_run_in_the_order_it_is_named():
    readers = bench.readers_of_each(bench.parse(["--only", "loop", "smtp"]))

    assert list(readers.items()) == [("loop", 6000), ("smtp", 100_000)]


@pytest.mark.parametrize(
    ("words", "usual"),
    [([], 100_000), (["--explain"], 1_000_000), (["--distance", "0", "20"], 2000), (["--signups"], 3000)],
)
def test_the_usual_number_of_readers_is_the_measurements_own(words, usual):
    assert bench.parse(words).readers == usual
    assert bench.parse([*words, "--readers", "7"]).readers == 7


def test_there_is_no_digest_for_nobody(capsys):
    with pytest.raises(SystemExit):
        bench.parse(["--readers", "0"])

    assert "at least one reader" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "make bench N=100000 ROUNDS=3"),
        (["--readers", "20", "--rounds", "2", "--docs"], "make bench N=20 ROUNDS=2"),
        (["--same-readers"], "make bench N=100000 ROUNDS=3 ARGS=--same-readers"),
        (["--month-day", "--same-readers"], 'make bench N=100000 ROUNDS=3 ARGS="--same-readers --month-day"'),
        (["--only", "smtp", "loop"], 'make bench N=100000 ROUNDS=3 ARGS="--only smtp loop"'),
    ],
)
def test_the_command_that_is_written_down_measures_the_same_again(words, said):
    assert bench.command_line(bench.parse(words)) == said


def test_a_sender_of_the_benchmarks_own_warms_up_and_then_sends_to_as_many_as_it_is_to(monkeypatch, capsys):
    monkeypatch.setenv("BENCH_COUNT", "5000")
    monkeypatch.setattr("sys.stdin", io.StringIO("go\n"))
    sent: list[int] = []

    protocol.run(sent.append)

    assert sent == [protocol.WARM_UP, 5000]
    assert capsys.readouterr().out.split() == ["ready", "done"]
