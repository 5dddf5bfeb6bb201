"""The benchmark's own receivers know each reader: a mail that is lost or doubled spoils the run."""

import smtplib
import socket
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from newsroom.mail.pipelining import Parcel, Pipeline
from tests.benchmarks import contenders
from tests.benchmarks.metering import Cost
from tests.benchmarks.scene import Sink

# The benchmark's own readers are numbered.
READERS = ["anna@leser.example", "leserin2@leser.example", "leserin2000001@leser.example"]
COST = Cost(1.0, 1.0, 0.0, 1.0, 0)


@pytest.fixture(params=["smtp", "mailgun", "postmark"])
def way(request, guard):
    sink = Sink("smtp" if request.param == "smtp" else "http", guard)
    yield sink, {"smtp": _by_smtp, "mailgun": _by_mailgun, "postmark": _by_postmark}[request.param]
    sink.close()


def test_a_run_counts_when_each_reader_got_one_mail(way, tmp_path, monkeypatch):
    assert replace(_run(way, READERS, tmp_path, monkeypatch), sink_cpu_seconds=0.0) == COST


@pytest.mark.parametrize(
    ("mailed", "said"),
    [
        (READERS[:2], "1 missing"),
        ([*READERS, READERS[0]], "1 twice"),
        ([*READERS, READERS[1]], "1 twice"),
        ([*READERS, "dora@leser.example"], "1 strangers"),
        ([*READERS, "leserin3@leser.example"], "1 strangers"),
        ([*READERS, "leserin02@leser.example"], "1 strangers"),
        ([READERS[0], *READERS[:2]], "1 missing, 1 twice"),
    ],
)
def test_a_run_fails_when_a_mail_is_lost_doubled_or_a_strangers(way, mailed, said, tmp_path, monkeypatch):
    with pytest.raises(contenders.Failed, match=said):
        _run(way, mailed, tmp_path, monkeypatch)


def test_who_left_in_mid_send_may_lack_the_mail_but_not_have_it_twice(way, tmp_path):
    sink, send = way
    (tmp_path / "readers").write_text("\n".join(READERS))
    (tmp_path / "leavers").write_text("\n".join(READERS[1:]))

    send(sink.port, READERS[:2])
    once = sink.check(tmp_path / "readers", tmp_path / "leavers")
    send(sink.port, [READERS[1]])
    again = sink.check(tmp_path / "readers", tmp_path / "leavers")

    assert (once["missing"], once["twice"], again["twice"]) == (0, 0, 1)


def test_the_mail_to_somebody_who_signs_up_meanwhile_is_none_of_the_digest(way, tmp_path):
    sink, send = way
    (tmp_path / "readers").write_text("\n".join(READERS))

    send(sink.port, [*READERS, "neu1@besuch.example"])

    assert sink.total == len(READERS)
    assert sink.check(tmp_path / "readers")["strangers"] == 0


MESSAGE = b"Subject: Heute\r\n\r\n..\r\n.. .\r\nDer Tag\r\n.\r\n"
ENVELOPE = "MAIL FROM:<a@b.example> BODY=8BITMIME\r\nRCPT TO:<{}>\r\nDATA\r\n"


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_pipelined_messages_are_told_apart_wherever_the_network_cuts_them(guard, tmp_path, step):
    (tmp_path / "readers").write_text("\n".join(READERS))
    sink = Sink("smtp", guard)
    with socket.create_connection(("127.0.0.1", sink.port), timeout=10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers = client.makefile("rb")
        words = [b"EHLO bench.example\r\n" + ENVELOPE.format(READERS[0]).encode()]
        words += [MESSAGE + ENVELOPE.format(address).encode() for address in READERS[1:]]
        words += [b".\r\nQUIT\r\n"]  # the last one is empty
        said = []
        for group in words:
            for start in range(0, len(group), step):
                client.sendall(group[start : start + step])
            said += _answers_to_a_group(answers)

    assert [line[:3] for line in said].count(b"354") == 3
    found = sink.check(tmp_path / "readers")
    assert (found["missing"], found["twice"], found["strangers"]) == (0, 0, 0)
    sink.close()


def test_answers_of_a_far_server_come_late_each_and_in_order_to_the_last(guard, tmp_path):
    (tmp_path / "readers").write_text(READERS[0])
    sink = Sink("smtp", guard)
    sink.move_away(0.3)
    begun_at = time.monotonic()
    with socket.create_connection(("127.0.0.1", sink.port), timeout=10) as client:
        answers = client.makefile("rb")
        assert answers.readline().startswith(b"220")
        greeted_at = time.monotonic()
        client.sendall(ENVELOPE.format(READERS[0]).encode())
        time.sleep(0.1)
        client.sendall(MESSAGE + b"QUIT\r\n")
        first, first_at = answers.readline(), time.monotonic()
        rest, over_at = answers.read().splitlines(), time.monotonic()

    assert greeted_at - begun_at >= 0.3 and first_at - greeted_at >= 0.3
    assert 0.4 <= over_at - greeted_at < 0.6  # twice the way at least, had it not read on
    assert [line[:3] for line in (first, *rest)] == [b"250", b"250", b"354", b"250", b"221"]
    assert not any(number for word, number in sink.check(tmp_path / "readers").items() if word != "bytes")
    sink.close()


@pytest.mark.parametrize(
    ("offers", "waits"),
    [(("PIPELINING", "CHUNKING"), 1), (("PIPELINING",), 5), ((), 16)],
    ids=["chunks", "pipelining", "neither"],
)
def test_what_a_server_does_not_offer_is_paid_for_with_waiting(offers, waits, guard, tmp_path, settings, monkeypatch):
    monkeypatch.setattr(Pipeline, "no_chunks_until", 0.0)
    readers = [f"leserin{number}@leser.example" for number in range(4)]
    (tmp_path / "readers").write_text("\n".join(readers))
    sink = Sink("smtp", guard, offers=offers)
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", sink.port
    pipeline = Pipeline(connections=1)
    pipeline.open()
    sink.move_away(0.1)

    begun_at = time.monotonic()
    pipeline.hand_over([Parcel(each, "a@b.example", _content) for each in readers], may_begin=lambda index: True)
    took = time.monotonic() - begun_at
    pipeline.close()

    assert waits <= took / 0.1 < waits + 3
    assert not any(number for word, number in sink.check(tmp_path / "readers").items() if word != "bytes")
    sink.close()


def _content(_eight_bit: bool, is_bare: bool) -> tuple[list[bytes], bool]:
    return [b"Subject: Heute\r\n\r\nDer Tag\r\n", *([] if is_bare else [b".\r\n"])], False


def _answers_to_a_group(answers) -> list[bytes]:
    lines = [answers.readline()]
    while not lines[-1].startswith((b"354", b"221")):
        assert lines[-1], "The sink has hung up."
        lines.append(answers.readline())
    return lines


def _run(way, mailed: list[str], folder: Path, monkeypatch) -> Cost:
    sink, send = way
    (folder / "readers").write_text("\n".join(READERS))
    scene = SimpleNamespace(sinks={"smtp": sink}, readers_file=folder / "readers")

    def contender(scene) -> Cost:
        send(sink.port, mailed)
        return COST

    monkeypatch.setitem(contenders.CONTENDERS, "by hand", contenders.Contender(contender, "smtp"))
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
