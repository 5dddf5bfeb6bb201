"""The benchmark's receivers find the end of each mail, wherever the network cuts what they read."""

from itertools import combinations

import pytest
import requests

from tests.benchmarks import sink

READERS = ["leserin1@leser.example", "anna@leser.example", "leserin3@leser.example"]
# Nearly an end, in each way a body may have it: dots doubled, at a line's end, after or before a bare line feed.
ODD = b"Subject: Heute\r\n\r\n..\r\n...\r\nDer Tag.\r\n\r\n.. \r\n\n.\r\n\r\n.\nSchluss.\r\n"
END = b".\r\n"
LONG = ODD + b"Es wurde lange geredet, sehr lange.\r\n" * 100


def envelope(*addresses: str) -> bytes:
    readers = "".join(f"RCPT TO:<{address}>\r\n" for address in addresses)
    return f"MAIL FROM:<a@b.example> BODY=8BITMIME\r\n{readers}DATA\r\n".encode()


def conversation(body: bytes) -> list[bytes]:
    """Return what a pipelining client says; between two groups it waits for the answers. The last message is empty."""
    between = [body + END + envelope(address) for address in READERS[1:]]
    return [b"EHLO bench.example\r\n" + envelope(READERS[0]), *between, END + b"QUIT\r\n"]


def heard(groups: list[list[bytes]]) -> tuple[bytes, dict[str, int], int]:
    """Let a new session read the groups' pieces, and return all it says, what it counted, and how many bytes."""
    tally = sink.Tally()
    session = sink.Smtp(tally)
    answers = b"".join(_fed(session, piece) for group in groups for piece in group)
    return answers, {address: tally.count_of(address.encode()) for address in READERS}, tally.bytes


def _fed(session: sink.Session, piece: bytes) -> bytes:
    buffer = bytearray(piece + b"\r\n.\r\nwhat an earlier read has left\r\n.\r\n")
    return session.feed(buffer, len(piece))


def cut(group: bytes, *places: int) -> list[bytes]:
    return [group[start:end] for start, end in zip((0, *places), (*places, len(group)), strict=True)]


@pytest.mark.parametrize("body", [ODD, b"\r\n", LONG])
def test_a_message_may_be_cut_at_any_octet(body):
    groups = conversation(body)
    whole = heard([[group] for group in groups])

    for number, group in enumerate(groups):
        for place in range(1, len(group)):
            cuts = [cut(each, place) if number == other else [each] for other, each in enumerate(groups)]
            assert heard(cuts) == whole, (number, place)

    assert whole[1] == dict.fromkeys(READERS, 1)
    assert whole[2] == len(body) * 2


def test_a_message_may_be_cut_at_any_two_octets_about_its_end_and_at_every_octet():
    groups = conversation(ODD)
    whole = heard([[group] for group in groups])
    end = len(ODD + END)

    for places in combinations(range(end - 12, end + 12), 2):
        assert heard([[groups[0]], cut(groups[1], *places), cut(groups[2], *places), [groups[3]]]) == whole, places

    assert heard([[bytes([octet]) for octet in group] for group in groups]) == whole


@pytest.mark.parametrize("body", [ODD, b"", b"\r\n.\r\n", LONG])
def test_chunks_are_told_apart_wherever_they_are_cut(body):
    mails = [
        f"RSET\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<{address}>\r\nBDAT {len(body)} LAST\r\n".encode() + body
        for address in READERS
    ]
    said = b"EHLO bench.example\r\n" + b"".join(mails) + b"QUIT\r\n"
    whole = heard([[said]])

    for place in range(1, len(said)):
        assert heard([cut(said, place)]) == whole, place

    assert heard([[bytes([octet]) for octet in said]]) == whole
    assert whole[0].count(sink.TAKEN) == 3 and whole[0].endswith(sink.TAKEN + b"221 2.0.0 bye\r\n")
    assert whole[1:] == (dict.fromkeys(READERS, 1), len(body) * 3)


@pytest.mark.parametrize("offers", [("PIPELINING", "CHUNKING"), ("PIPELINING",), ()])
def test_only_what_is_offered_is_understood(offers):
    session = sink.Smtp(sink.Tally(), offers=offers)

    offered = session.feed(b"EHLO bench.example\r\n", 20)
    answer = session.feed(b"BDAT 9 LAST\r\n", 13)

    assert [line[4:].decode() for line in offered.splitlines()] == ["sink.example", *offers, "8BITMIME"]
    assert answer == (b"" if "CHUNKING" in offers else b"500 5.5.1 unknown\r\n")


def test_an_end_is_found_however_long_the_command_behind_it():
    for length in range(sink.NEAR - 200, sink.NEAR):
        behind = f"MAIL FROM:<{'a' * length}@b.example>\r\nRCPT TO:<{READERS[2]}>\r\nDATA\r\n".encode()
        groups = [envelope(READERS[0]), ODD + END + envelope(READERS[1]), LONG + END + behind, END]
        assert heard([[group] for group in groups])[1] == dict.fromkeys(READERS, 1), length


def test_many_readers_commands_behind_an_end_do_not_hide_it():
    many = [f"leserin{number}@leser.example" for number in range(10, 200)]
    groups = [envelope(READERS[0]), LONG + END + envelope(READERS[1]), LONG + END + envelope(*many), END]

    answers, counted, _bytes = heard([[group] for group in groups])

    assert answers.count(b"250 2.0.0 taken") == 3
    assert counted == {READERS[0]: 1, READERS[1]: 1, READERS[2]: 0}


def test_a_client_that_doubles_no_dots_is_found_out():
    body = b"Der Tag\r\n.\r\nSchluss\r\n"

    answers, _counted, _bytes = heard([[envelope(READERS[0])], [body + END]])

    assert b"500 5.5.1" in answers


def test_one_that_waits_for_nothing_is_understood():
    words = b"EHLO bench.example\r\n" + envelope(READERS[0]) + ODD + END + b"QUIT\r\n"

    answers, counted, _bytes = heard([[words]])

    assert answers.endswith(b"354 go on\r\n250 2.0.0 taken\r\n221 2.0.0 bye\r\n")
    assert counted[READERS[0]] == 1


FORM = {"to": READERS, "text": 'to=x@y.example&to=x@y.example\r\n; name="to"\r\n\r\nx@y.example', "o:tag": "Größe"}


def _request(path: str, **content) -> bytes:
    made = requests.Request("POST", f"http://sink.example{path}", **content).prepare()
    head = [f"POST {made.path_url} HTTP/1.1", *(": ".join(map(str, header)) for header in made.headers.items()), "", ""]
    return "\r\n".join(head).encode() + (made.body if isinstance(made.body, bytes) else made.body.encode())


@pytest.mark.parametrize(
    "call",
    [
        [_request("/v3/mg.example/messages", data=FORM)],
        [_request("/v3/mg.example/messages", data=FORM | {"to": ", ".join(READERS)})],
        [_request("/v3/mg.example/messages", data=FORM, files={"attachment": ("to", "x@y.example")})],
        [_request("/v3/mg.example/messages", data=FORM | {"to": ", ".join(READERS)}, files={"to": ("", "")})],
        [_request("/email", json={"TextBody": '"To": "x@y.example"', "To": address}) for address in READERS],
    ],
    ids=["fields", "one field", "parts", "one part", "postmark"],
)
def test_calls_are_read_whole_wherever_they_are_cut(call):
    words = b"".join(call)

    for place in range(1, len(words)):
        tally = sink.Tally()
        session = sink.Http(tally)
        answers = b"".join(_fed(session, piece) for piece in cut(words, place))

        assert answers.count(b"HTTP/1.1 200 OK") == len(call)
        assert [tally.count_of(address.encode()) for address in READERS] == [1, 1, 1]
        assert tally.total == len(READERS)
