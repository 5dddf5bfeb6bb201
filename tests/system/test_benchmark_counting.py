"""The benchmark's own receivers know each reader: a mail that is lost or doubled spoils the run."""

import smtplib
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from tests.benchmarks import contenders
from tests.benchmarks.metering import Cost
from tests.benchmarks.scene import Sink

READERS = ["anna@leser.example", "bert@leser.example", "cem@leser.example"]
COST = Cost(1.0, 1.0, 0.0, 1.0, 0)


@pytest.fixture(params=["smtp", "mailgun", "postmark"])
def way(request, guard):
    sink = Sink("smtp" if request.param == "smtp" else "http", guard)
    yield sink, {"smtp": _by_smtp, "mailgun": _by_mailgun, "postmark": _by_postmark}[request.param]
    sink.close()


def test_a_run_counts_when_each_reader_got_one_mail(way, tmp_path, monkeypatch):
    assert _run(way, READERS, tmp_path, monkeypatch) == COST


@pytest.mark.parametrize(
    ("mailed", "said"),
    [
        (READERS[:2], "1 missing"),
        ([*READERS, READERS[0]], "1 twice"),
        ([*READERS, "dora@leser.example"], "1 strangers"),
        ([READERS[0], *READERS[:2]], "1 missing, 1 twice"),
    ],
)
def test_a_run_fails_when_a_mail_is_lost_doubled_or_a_strangers(way, mailed, said, tmp_path, monkeypatch):
    with pytest.raises(contenders.Failed, match=said):
        _run(way, mailed, tmp_path, monkeypatch)


def _run(way, mailed: list[str], folder: Path, monkeypatch) -> Cost:
    sink, send = way
    (folder / "readers").write_text("\n".join(READERS))
    scene = SimpleNamespace(sinks={"smtp": sink}, readers_file=folder / "readers")

    def contender(scene) -> Cost:
        send(sink.port, mailed)
        return COST

    monkeypatch.setitem(contenders.CONTENDERS, "by hand", (contender, "smtp"))
    return contenders.run("by hand", scene)


def _by_smtp(port: int, mailed: list[str]) -> None:
    with smtplib.SMTP("127.0.0.1", port) as session:
        for address in mailed:
            session.sendmail("newsletter@wochenblitz.example", [address], "Subject: Heute\r\n\r\n.\r\nDer Tag\r\n")


def _by_mailgun(port: int, mailed: list[str]) -> None:
    form = {"to": [f"Leserin <{address}>" for address in mailed], "text": "to=nobody@leser.example&to=x@y.example"}
    requests.post(f"http://127.0.0.1:{port}/v3/mg.example/messages", data=form, timeout=10).raise_for_status()


def _by_postmark(port: int, mailed: list[str]) -> None:
    for address in mailed:
        message = {"TextBody": '{"To": "nobody@leser.example"}', "To": address}
        requests.post(f"http://127.0.0.1:{port}/email", json=message, timeout=10).raise_for_status()
