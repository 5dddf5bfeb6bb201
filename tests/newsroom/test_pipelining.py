"""What pipelined SMTP says of a parcel is what the server's own log says of it."""

import asyncio
import gc
import ipaddress
import json
import smtplib
import socket
import ssl
import time
import warnings
from collections import Counter
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from newsroom.mail.outcomes import Outcome, Result
from newsroom.mail.pipelining import Parcel, Pipeline
from newsroom.mail.sessions import CHUNKS_AT_ONCE, Session
from tests.stand_ins import SmtpStandIn
from tests.torture.provider import SmtpProvider

SENDER = "newsletter@wochenblitz.example"
MESSAGE = "Subject: Der Tag\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße\r\n.Punkt\r\n".encode()
ACCEPTED = Result(Outcome.ACCEPTED, "")
DOTTED = MESSAGE.replace(b"\r\n.", b"\r\n..").removesuffix(b"\r\n")
CHUNKED = ("PIPELINING", "8BITMIME", "CHUNKING")
KINDS = [
    ("PIPELINING", "8BITMIME"),
    ("8BITMIME",),
    ("PIPELINING",),
    (),
    CHUNKED,
    ("PIPELINING", "CHUNKING"),
    ("CHUNKING",),
]
WAYS = [KINDS[0], CHUNKED]  # of one session to take many messages


def address_of(number):
    return f"leserin{number}@leser.example"


def make_parcels(count, *, content=MESSAGE, first=0):
    def write(eight_bit, is_bare):
        own = content if eight_bit else content.replace("üß".encode(), b"us")
        pieces = [own] if is_bare else [own.replace(b"\r\n.", b"\r\n.."), b".\r\n"]
        return pieces, not own.isascii()

    return [Parcel(address_of(number), SENDER, write) for number in range(first, first + count)]


def point_at(settings, port, *, timeout=5):
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", port
    settings.EMAIL_HOST_USER = settings.EMAIL_HOST_PASSWORD = ""
    settings.EMAIL_USE_TLS = settings.EMAIL_USE_SSL = False
    settings.EMAIL_TIMEOUT = timeout


def send(parcels, *, may_begin=lambda index: True, connections=4):
    pipeline = Pipeline(connections=connections)
    pipeline.open()
    try:
        return pipeline.hand_over(parcels, may_begin=may_begin)
    finally:
        pipeline.close()


def outcomes(results):
    return [result and result.outcome for result in results]


@pytest.fixture(autouse=True)
def no_caution(monkeypatch):
    """Let each test begin as a process does."""
    monkeypatch.setattr(Pipeline, "no_chunks_until", 0.0)


class LocalProvider:
    """The torture tests' SMTP server within this process."""

    def __init__(self, folder, *, extensions=KINDS[0], tls=None):
        self._folder, self._tls = folder, tls
        self._provider = SmtpProvider(folder, seed=1)
        self._provider.extensions = extensions
        self.is_chunked = "CHUNKING" in extensions
        self._is_ready = Event()

    def __enter__(self):
        self._thread = Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._is_ready.wait(30)
        return self

    def __exit__(self, *error):
        self._loop.call_soon_threadsafe(self._is_over.set)
        self._thread.join(30)

    async def _serve(self):
        self._loop, self._is_over = asyncio.get_running_loop(), asyncio.Event()
        writers = []

        async def serve(reader, writer):
            writers.append(writer)
            await self._provider.serve(reader, writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=10_000_000, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        self._is_ready.set()
        await self._is_over.wait()
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.05)

    def break_by(self, **faults):
        (self._folder / "faults.json").write_text(json.dumps(faults))

    @property
    def log(self):
        return [json.loads(line) for line in (self._folder / "log").read_text().splitlines()]

    @property
    def taken(self):
        return Counter(entry["to"] for entry in self.log if entry["what"] == "taken")


@pytest.fixture(params=WAYS, ids=["dots", "chunks"])
def provider(request, tmp_path, settings):
    with LocalProvider(tmp_path, extensions=request.param) as provider:
        point_at(settings, provider.port)
        yield provider


@pytest.mark.parametrize("extensions", KINDS)
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_each_parcel_arrives_once(extensions, count, tmp_path, settings):
    with LocalProvider(tmp_path, extensions=extensions) as provider:
        point_at(settings, provider.port)
        results = send(make_parcels(count))

    assert results == [Result(Outcome.ACCEPTED, "")] * count
    assert provider.taken == Counter(map(address_of, range(count)))


@pytest.mark.parametrize("stage", ["before", "within", "after"])
def test_a_session_cut_at_its_kth_mail_is_told_truly_for_k_up_to_fifty(stage, provider, monkeypatch):
    monkeypatch.setattr("newsroom.mail.pipelining.CHUNK_PAUSE", 0.0)
    provider.break_by(cut=stage)
    left = list(range(1500))
    results: dict[int, Result] = {}

    while left and sum(entry["what"] == "cut" for entry in provider.log) < 50:
        told = send([make_parcels(1, first=number)[0] for number in left], connections=1)
        results |= {number: result for number, result in zip(left, told, strict=True) if result}
        left = [number for number, result in zip(left, told, strict=True) if result is None]

    by_outcome = Counter(result.outcome for result in results.values())
    accepted = {address_of(number) for number, result in results.items() if result.outcome is Outcome.ACCEPTED}
    ambiguous = {address_of(number) for number, result in results.items() if result.outcome is Outcome.AMBIGUOUS}
    taken = provider.taken
    assert max(taken.values()) == 1
    assert accepted <= taken.keys() <= accepted | ambiguous
    # Before the dot the first of a fresh session is unsent, any other goes out in the next session. Chunks had left.
    least = 50 if stage == "after" or (stage == "within" and not provider.is_chunked) else 0
    assert least <= by_outcome[Outcome.AMBIGUOUS] <= (50 * CHUNKS_AT_ONCE if provider.is_chunked else least)
    assert by_outcome[Outcome.NOT_SENT] <= 1
    print(f"{stage}: {sum(by_outcome.values())} told, {dict(by_outcome)}, taken {len(taken)}, twice 0")


@pytest.mark.parametrize("extensions", [*KINDS[:2], CHUNKED])
def test_a_refused_reader_is_told_apart_from_the_others(extensions, tmp_path, settings):
    with LocalProvider(tmp_path, extensions=extensions) as provider:
        point_at(settings, provider.port)
        provider.break_by(poison=[address_of(3), address_of(4), address_of(29)])
        results = send(make_parcels(30))

    refused = Result(Outcome.REFUSED, "SMTPRecipientsRefused 550 5.1.1")
    assert [number for number, result in enumerate(results) if result == refused] == [3, 4, 29]
    assert provider.taken == Counter(map(address_of, set(range(30)) - {3, 4, 29}))


def test_a_mailbox_that_asks_for_patience_stops_nobody_else(settings):
    with SmtpStandIn() as server:
        server.configure(settings)
        server.refused[address_of(2)] = "450 4.2.1 later"
        results = send(make_parcels(10))

    assert outcomes(results) == [Outcome.THROTTLED if number == 2 else Outcome.ACCEPTED for number in range(10)]
    assert not results[2].is_general


def test_an_answer_that_never_comes_is_ambiguous_and_the_next_is_unsent(provider, settings):
    settings.EMAIL_TIMEOUT = 0.5
    provider.break_by(mode="unanswered")

    results = send(make_parcels(6), connections=1)

    under_way = CHUNKS_AT_ONCE if provider.is_chunked else 1
    assert outcomes(results) == [Outcome.AMBIGUOUS] * under_way + [None] * (6 - under_way)
    assert provider.taken == Counter([address_of(0)])


def test_a_server_that_says_that_it_ends_has_taken_nothing_after_it(provider):
    provider.break_by(mode="fault_before", chance=0.1)
    left, accepted = list(range(400)), []

    for _run in range(400):
        results = send([make_parcels(1, first=number)[0] for number in left], connections=2)
        assert set(outcomes(results)) <= {Outcome.ACCEPTED, Outcome.THROTTLED, None}
        accepted += [number for number, result in zip(left, results, strict=True) if result == ACCEPTED]
        left = [number for number, result in zip(left, results, strict=True) if result != ACCEPTED]
        if not left:
            break

    assert provider.taken == Counter(map(address_of, accepted)) == Counter(map(address_of, range(400)))


def test_a_server_that_closes_its_doors_is_general_and_stops_the_run(provider):
    provider.break_by(mode="deny")

    results = send(make_parcels(50))

    assert set(outcomes(results)) == {Outcome.DENIED, None}
    assert outcomes(results).count(Outcome.DENIED) <= 4 * (CHUNKS_AT_ONCE if provider.is_chunked else 1)
    assert not provider.taken


def test_a_server_that_ends_sessions_early_gets_new_ones(settings):
    with SmtpStandIn() as server:
        server.configure(settings)
        server.per_session = 3
        results = send(make_parcels(40))

    assert set(outcomes(results)) == {Outcome.ACCEPTED}
    assert Counter(mail.recipients[0] for mail in server.received) == Counter(map(address_of, range(40)))


def test_who_may_not_begin_is_not_handed_over(provider):
    asked = []

    def may_begin(index):
        asked.append(index)
        return index % 3 > 0

    results = send(make_parcels(30), may_begin=may_begin)

    assert sorted(asked) == list(range(30))
    assert outcomes(results) == [Outcome.ACCEPTED if index % 3 else None for index in range(30)]
    assert provider.taken == Counter(address_of(index) for index in range(30) if index % 3)


@pytest.mark.parametrize("provider", WAYS[:1], indirect=True)
def test_who_was_asked_for_long_ago_is_asked_for_again_before_the_message_leaves(provider, settings, monkeypatch):
    monkeypatch.setattr("newsroom.mail.pipelining.LONGEST_ANSWER_AGE", -1.0)
    asked: Counter[int] = Counter()

    def may_begin(index):
        asked[index] += 1
        return asked[index] == 1 or index != 2

    results = send(make_parcels(5), may_begin=may_begin, connections=1)

    assert outcomes(results)[2] is None
    assert address_of(2) not in provider.taken
    assert provider.taken.keys() >= {address_of(0), address_of(4)}


def test_a_question_that_fails_breaks_off_and_leaves_no_session_behind(provider):
    def may_begin(index):
        if index == 3:
            raise RuntimeError("the database is gone")
        return True

    pipeline = Pipeline()
    pipeline.open()

    with pytest.raises(RuntimeError):
        pipeline.hand_over(make_parcels(8), may_begin=may_begin)

    assert pipeline.sessions == []
    assert outcomes(pipeline.hand_over(make_parcels(2, first=50), may_begin=lambda index: True)) == ["accepted"] * 2
    pipeline.close()


def test_a_copy_that_cannot_be_written_is_refused_alone(provider):
    def fail(eight_bit, is_bare):
        raise ValueError(address_of(1))

    parcels = make_parcels(6)
    parcels[1].content = fail
    parcels[2].address = "a@leser.example>\r\nRCPT TO:<b@leser.example"
    parcels[3].sender = "a b@wochenblitz.example"

    results = send(parcels)

    assert outcomes(results) == [Outcome.ACCEPTED, *[Outcome.REFUSED] * 3, Outcome.ACCEPTED, Outcome.ACCEPTED]
    assert address_of(1) not in repr(results)
    assert provider.taken == Counter(map(address_of, [0, 4, 5]))


def test_a_session_that_was_idle_and_is_gone_is_opened_anew(settings, tmp_path):
    with SmtpStandIn() as server:
        server.configure(settings)
        pipeline = Pipeline(connections=2)
        pipeline.open()
        pipeline.hand_over(make_parcels(12), may_begin=lambda index: True)
        for session in pipeline.sessions:
            session.socket.shutdown(socket.SHUT_RDWR)
        results = pipeline.hand_over(make_parcels(12, first=12), may_begin=lambda index: True)
        pipeline.close()

    assert set(outcomes(results)) == {Outcome.ACCEPTED}
    assert Counter(mail.recipients[0] for mail in server.received) == Counter(map(address_of, range(24)))


def test_a_server_that_is_gone_for_good_is_not_sent_to(settings):
    with SmtpStandIn() as server:
        server.configure(settings)
        pipeline = Pipeline()
        pipeline.open()
        server.stop()
        results = pipeline.hand_over(make_parcels(3), may_begin=lambda index: True)
        with pytest.raises(ConnectionRefusedError):
            Pipeline().open()
        pipeline.close()

    assert outcomes(results) == [Outcome.NOT_SENT, None, None]
    assert results[0].is_general


# STARTTLS and AUTH


@pytest.fixture
def certificate(tmp_path, monkeypatch):
    """A server's TLS with a certificate of its own, which this process trusts."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    made = made.add_extension(address, critical=False).add_extension(x509.BasicConstraints(True, None), critical=True)
    file = tmp_path / "certificate.pem"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    file.write_bytes(secret + made.sign(key, hashes.SHA256()).public_bytes(pem))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def test_mail_goes_out_encrypted_and_logged_in(certificate, settings):
    big = MESSAGE + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 3000
    with SmtpStandIn(user="wochenblitz", password="geheim$1", tls=certificate) as server:
        server.configure(settings)
        settings.EMAIL_USE_TLS, settings.EMAIL_TIMEOUT = True, 20
        results = send([*make_parcels(20), *make_parcels(2, first=20, content=big)])

    assert set(outcomes(results)) == {Outcome.ACCEPTED}
    assert Counter(mail.recipients[0] for mail in server.received) == Counter(map(address_of, range(22)))


def test_chunks_go_out_encrypted(certificate, settings, tmp_path):
    big = MESSAGE + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 3000
    parcels = [*make_parcels(10), *make_parcels(10, first=10, content=big), *make_parcels(30, first=20)]
    with LocalProvider(tmp_path, extensions=CHUNKED, tls=certificate) as provider:
        point_at(settings, provider.port, timeout=20)
        settings.EMAIL_USE_SSL = True
        provider.break_by(poison=[address_of(5), address_of(12)])
        results = send(parcels)

    told = [Outcome.REFUSED if number in {5, 12} else Outcome.ACCEPTED for number in range(50)]
    assert outcomes(results) == told
    assert provider.taken == Counter(address_of(number) for number in range(50) if number not in {5, 12})


def test_mail_goes_out_logged_in_without_encryption(settings):
    with SmtpStandIn(user="wochenblitz", password="geheim$1") as server:
        server.configure(settings)
        settings.EMAIL_USE_TLS = False
        results = send(make_parcels(20))

    assert set(outcomes(results)) == {Outcome.ACCEPTED}
    assert Counter(mail.recipients[0] for mail in server.received) == Counter(map(address_of, range(20)))


@contextmanager
def sockets_left_behind():
    """Yield a list to which the ends of sockets come that were thrown away open."""
    gc.collect()
    left: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        yield left
        gc.collect()
    left += [str(each.message) for each in caught if "raddr" in str(each.message)]


@pytest.mark.parametrize("is_encrypted", [True, False])
def test_a_failed_login_leaves_no_socket_behind(is_encrypted, certificate, settings):
    tls = certificate if is_encrypted else None
    with SmtpStandIn(user="wochenblitz", password="geheim$1", tls=tls) as server:
        server.configure(settings)
        settings.EMAIL_USE_TLS, settings.EMAIL_HOST_PASSWORD, settings.EMAIL_TIMEOUT = is_encrypted, "falsch", 20

        with sockets_left_behind() as left, pytest.raises(smtplib.SMTPAuthenticationError):
            Pipeline().open()

    assert left == []


def test_a_server_that_cannot_encrypt_gets_no_password_and_leaves_no_socket_behind(settings):
    with Scripted() as server:
        point_at(settings, server.port)
        settings.EMAIL_USE_TLS = True
        settings.EMAIL_HOST_USER, settings.EMAIL_HOST_PASSWORD = "wochenblitz", "geheim$1"

        with sockets_left_behind() as left, pytest.raises(smtplib.SMTPNotSupportedError):
            Pipeline().open()

    assert left == []
    assert not any(command.startswith(b"AUTH") for command in server.commands)


# A server that does what servers do


class Listening:
    """Whoever connects is served by a thread, which is told how many came before and with this one."""

    sessions = 0

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        while True:
            try:
                connection, _peer = self._listener.accept()
            except OSError:
                return
            self.sessions += 1
            Thread(target=self._serve, args=(connection, self.sessions), daemon=True).start()


class Scripted(Listening):
    """A server that gives the answers it was told, to what begins with a word; None ends the connection."""

    def __init__(self, answers=(), *, extensions=("PIPELINING", "8BITMIME"), pause=0.0, piece=100_000, most=9):
        greeting = "\r\n".join(["250-server.example", *(f"250-{word}" for word in extensions), "250 HELP\r\n"])
        standard = {"": "220 hello\r\n", "EHLO": greeting, "DATA": "354 go on\r\n", "QUIT": "221 bye\r\n"}
        self._answers = standard | dict(answers)
        self._pause, self._piece, self._most = pause, piece, most
        self.messages, self.commands = [], []

    def _serve(self, connection, number):
        with connection, connection.makefile("rb") as reader:
            try:
                self._say(connection, "" if number <= self._most else "TOO MANY")
                while line := reader.readline():
                    word = line[:4].decode("latin-1").strip().upper()
                    self.commands.append(line)
                    if word == "BDAT":
                        self.messages.append(self._read_chunk(reader, int(line.split()[1])))
                        word = "DOT"
                    self._say(connection, word)
                    if word == "DATA" and self._answers["DATA"].startswith("354"):
                        self.messages.append(self._read_message(reader))
                        self._say(connection, "DOT")
            except OSError:
                return

    def _read_message(self, reader):
        lines = []
        while (line := reader.readline()) != b".\r\n":
            if not line:
                raise ConnectionError
            lines.append(line)
            time.sleep(self._pause)
        return b"".join(lines).replace(b"\r\n..", b"\r\n.")

    def _read_chunk(self, reader, size):
        octets = b""
        while len(octets) < size:
            if not (line := reader.readline(size - len(octets))):
                raise ConnectionError
            octets += line
            time.sleep(self._pause)
        return octets

    def _say(self, connection, word):
        answer = self._answers.get(word, "421 too many\r\n" if word == "TOO MANY" else "250 2.0.0 ok\r\n")
        if answer is None:
            raise ConnectionError
        octets = answer.encode("latin-1")
        for start in range(0, len(octets), self._piece):
            connection.sendall(octets[start : start + self._piece])
            if self._piece < len(octets):
                time.sleep(0.001)


def talk(settings, count=3, *, timeout=1, content=MESSAGE, connections=1, **script):
    with Scripted(**script) as server:
        point_at(settings, server.port, timeout=timeout)
        results = send(make_parcels(count, content=content), connections=connections)
    assert "leser.example" not in repr(results)
    return server, results


@pytest.mark.parametrize("extensions", WAYS)
def test_replies_of_many_lines_in_single_octets_are_understood(extensions, settings):
    answers = {"MAIL": "250-2.1.0 well\r\n250-then\r\n250 ok\r\n", "DOT": "250-a\r\n250 b\r\n"}
    server, results = talk(settings, answers=answers, extensions=extensions, piece=1, timeout=5)

    assert outcomes(results) == [Outcome.ACCEPTED] * 3
    assert len(server.messages) == 3


@pytest.mark.parametrize(
    "reply", ["\0\0\0\0\r\n", "hello?\r\n", "25\r\n", "999 what\r\n", "354 odd\r\n", "x" * 200_000]
)
def test_an_answer_nobody_can_read_is_ambiguous_after_the_dot_and_unsent_before(reply, settings):
    _server, after = talk(settings, answers={"DOT": reply})
    server, before = talk(settings, answers={"RCPT": reply})

    assert outcomes(after) == [Outcome.AMBIGUOUS, None, None]
    assert outcomes(before) == [Outcome.NOT_SENT, None, None]
    assert server.messages == []


def test_a_lone_dot_ends_what_a_server_wants_for_a_recipient_it_refused(settings):
    server, results = talk(
        settings, answers={"RCPT": "550 5.1.1 <leserin0@leser.example> who?\r\n", "DOT": "554 no\r\n"}
    )

    assert results == [Result(Outcome.REFUSED, "SMTPRecipientsRefused 550 5.1.1")] * 3
    assert server.messages == [b""] * 3


@pytest.mark.parametrize(
    ("word", "reply", "outcome"),
    [
        ("MAIL", "553 5.7.1 not yours", Outcome.DENIED),
        ("MAIL", "421 4.3.0 bye", Outcome.THROTTLED),
        ("RCPT", "421 4.3.0 bye", Outcome.THROTTLED),
        ("RCPT", "530 5.7.0 log in", Outcome.DENIED),
        ("DATA", "421 4.3.0 bye", Outcome.THROTTLED),
        ("DATA", "250 2.0.0 odd", Outcome.NOT_SENT),
        ("DOT", "535 5.7.8 who are you", Outcome.DENIED),
        ("DOT", "421 4.3.0 bye", Outcome.THROTTLED),
    ],
)
@pytest.mark.parametrize("extensions", [("PIPELINING",), ()])
def test_a_fault_that_would_meet_everybody_stops_the_run(word, reply, outcome, extensions, settings):
    _server, results = talk(settings, answers={word: f"{reply}\r\n"}, extensions=extensions)

    assert outcomes(results) == [outcome, None, None]
    assert results[0].is_general


@pytest.mark.parametrize("extensions", [("PIPELINING",), (), CHUNKED])
def test_a_message_that_is_refused_leaves_the_next_alone(extensions, settings):
    server, results = talk(settings, answers={"DOT": "554 5.7.1 spam\r\n"}, extensions=extensions)

    assert results == [Result(Outcome.REFUSED, "SMTPDataError 554 5.7.1")] * 3
    assert len(server.messages) == 3


@pytest.mark.parametrize("extensions", WAYS)
def test_a_big_message_to_a_slow_reader_arrives_whole(extensions, settings):
    big = b"Subject: x\r\n\r\n" + (b"y" * 900 + b"\r\n") * 1100

    server, results = talk(settings, count=2, content=big, extensions=extensions, pause=0.0005, timeout=30)

    assert outcomes(results) == [Outcome.ACCEPTED] * 2
    assert server.messages == [big] * 2


def test_a_message_refused_before_it_was_whole_is_refused_and_not_stuck(settings):
    big = b"Subject: x\r\n\r\n" + (b"y" * 900 + b"\r\n") * 9000

    server, results = talk(
        settings, count=2, content=big, pause=0.01, timeout=3, answers={"DATA": "354 go\r\n552 5.3.4 too big\r\n"}
    )

    assert outcomes(results) == [Outcome.REFUSED] * 2
    assert server.messages == []


@pytest.mark.parametrize("extensions", WAYS)
def test_a_message_cut_before_its_end_left_is_surely_unsent(extensions, settings):
    big = b"Subject: x\r\n\r\n" + (b"y" * 900 + b"\r\n") * 9000

    server, results = talk(settings, count=2, content=big, extensions=extensions, pause=0.01, timeout=0.5)

    assert outcomes(results) == [Outcome.NOT_SENT, None]
    assert server.messages == []


@pytest.mark.parametrize("extensions", WAYS)
def test_one_session_is_enough_where_the_server_wants_no_more(extensions, settings):
    server, results = talk(settings, count=40, connections=4, most=1, extensions=extensions)

    assert set(outcomes(results)) == {Outcome.ACCEPTED}
    assert server.sessions == 2  # one refusal was understood
    assert len(server.messages) == 40


@pytest.mark.parametrize("extensions", WAYS)
def test_a_pipeline_says_goodbye(extensions, settings):
    server, _results = talk(settings, extensions=extensions)

    assert server.commands[-1] == b"QUIT\r\n"
    assert sum(command.startswith(b"MAIL") for command in server.commands) == 3


# Chunks


def test_an_envelope_and_its_chunk_leave_together_and_nothing_of_the_one_before_is_left(settings):
    server, results = talk(settings, extensions=CHUNKED)

    assert outcomes(results) == [Outcome.ACCEPTED] * 3
    assert server.messages == [MESSAGE] * 3
    words = [command[:4].upper() for command in server.commands]
    assert words == [b"EHLO", *[b"MAIL", b"RCPT", b"BDAT", b"RSET"] * 2, b"MAIL", b"RCPT", b"BDAT", b"QUIT"]
    assert {line for line in server.commands if line.startswith(b"BDAT")} == {b"BDAT %d LAST\r\n" % len(MESSAGE)}


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ({"DOT": "hello?\r\n"}, [Outcome.AMBIGUOUS] * 3),  # its own answer
        ({"RCPT": "hello?\r\n"}, [Outcome.AMBIGUOUS] * 3),  # and one that came before it
        ({"RCPT": "354 odd\r\n"}, [Outcome.AMBIGUOUS] * 3),
        ({"DOT": "421 4.3.0 bye\r\nhello?\r\n"}, [None] + [Outcome.AMBIGUOUS] * 2),
        ({"MAIL": "553 5.7.1 not yours\r\n"}, [Outcome.DENIED] * 3),
        ({"RCPT": "530 5.7.0 log in\r\n"}, [Outcome.DENIED] * 3),
        ({"DOT": "535 5.7.8 who are you\r\n"}, [Outcome.DENIED] * 3),
        ({"RSET": "500 what\r\n"}, [Outcome.ACCEPTED] + [Outcome.AMBIGUOUS] * 2),
        ({"DOT": None}, [Outcome.AMBIGUOUS] * 3),
    ],
)
def test_what_was_on_its_way_in_chunks_is_told_by_what_is_known_of_it(answers, told, settings):
    server, results = talk(settings, count=3, extensions=CHUNKED, answers=answers)

    assert outcomes(results) == told
    assert len(server.messages) >= outcomes(results).count(Outcome.ACCEPTED)


class Tired(Listening):
    """A server that takes so many messages in a session and says at a word of the next that it ends.

    It may hang up on what it has not read. Exim does not, beyond its `smtp_accept_max_per_connection`.
    """

    def __init__(self, word, *, most=5, hangs_up=False):
        self._word, self._most, self._hangs_up = word, most, hangs_up
        self.taken: Counter[str] = Counter()

    def _serve(self, connection, _number):
        count, to, is_refused = 0, "", False
        with connection, connection.makefile("rb") as reader, suppress(OSError):
            connection.sendall(b"220 hello\r\n")
            while line := reader.readline():
                word = line[:4].decode().upper()
                if word == "EHLO":
                    connection.sendall(b"250-server.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 CHUNKING\r\n")
                    continue
                if word == "BDAT":
                    reader.read(int(line.split()[1]))
                if word == "DATA" and not is_refused:
                    connection.sendall(b"354 go on\r\n")
                    while reader.readline() != b".\r\n":
                        pass
                is_refused = is_refused and word != "RSET"
                to = line.split(b"<")[1].split(b">")[0].decode() if word == "RCPT" else to
                if is_refused:
                    connection.sendall(b"503-5.5.1 not now\r\n503 really\r\n")
                elif count >= self._most and word == self._word:
                    is_refused = word != "RSET"
                    connection.sendall(b"421 too many messages in this connection\r\n")
                    if self._hangs_up:
                        return
                else:
                    if word in {"BDAT", "DATA"}:
                        self.taken[to] += 1
                        count += 1
                    connection.sendall(b"221 bye\r\n" if word == "QUIT" else b"250 2.0.0 ok\r\n")


@pytest.mark.parametrize("word", ["RSET", "MAIL", "RCPT", "BDAT"])
def test_a_server_that_says_that_it_ends_is_heard_to_the_end(word, settings):
    with Tired(word) as server:
        point_at(settings, server.port)
        results = send(make_parcels(60), connections=2)

    assert outcomes(results) == [Outcome.ACCEPTED] * 60
    assert server.taken == Counter(map(address_of, range(60)))
    assert server.sessions > 1


@pytest.mark.parametrize("word", ["RSET", "MAIL", "RCPT", "BDAT"])
def test_a_server_that_hangs_up_on_chunks_is_sent_no_more_of_them(word, settings):
    left = list(range(60))
    told: dict[int, Outcome] = {}
    with Tired(word, hangs_up=True) as server:
        point_at(settings, server.port)
        while left:
            results = send([make_parcels(1, first=number)[0] for number in left], connections=2)
            told |= {number: result.outcome for number, result in zip(left, results, strict=True) if result}
            left = [number for number in left if number not in told]

    accepted = {address_of(number) for number, outcome in told.items() if outcome is Outcome.ACCEPTED}
    assert set(told.values()) <= {Outcome.ACCEPTED, Outcome.AMBIGUOUS}
    assert max(server.taken.values()) == 1
    assert accepted <= server.taken.keys()
    assert 60 - len(accepted) <= 2 * CHUNKS_AT_ONCE


def test_after_a_fault_no_further_chunk_is_begun(settings):
    server, results = talk(settings, count=20, extensions=CHUNKED, answers={"DOT": "535 5.7.8 who are you\r\n"})

    assert outcomes(results) == [Outcome.DENIED] * CHUNKS_AT_ONCE + [None] * (20 - CHUNKS_AT_ONCE)
    assert len(server.messages) == CHUNKS_AT_ONCE


def test_more_chunks_are_on_their_way_than_were_answered_but_never_many(settings):
    begun = []
    with Scripted(extensions=CHUNKED, pause=0.02) as server:
        point_at(settings, server.port, timeout=5)

        def may_begin(index):
            begun.append(index - len(server.messages))
            return True

        results = send(make_parcels(30), may_begin=may_begin, connections=1)

    assert outcomes(results) == [Outcome.ACCEPTED] * 30
    assert max(begun) == CHUNKS_AT_ONCE - 1


# Answers that come together


class AtOnce(Listening):
    """A server that answers all it has been sent in one breath, or in two: `cut` says after how many octets.

    After the octets in `last` it hangs up, in the same packet.
    """

    def __init__(self, answers=(), *, cut=0, tls=None, last=b"none"):
        self._tls, self._last = tls, last
        self._answers = {"DATA": "354 go on\r\n", "QUIT": "221 bye\r\n"} | dict(answers)
        self._cut = cut
        self.messages, self.runs = [], []

    def _serve(self, connection, _number):
        if self._tls:
            connection = self._tls.wrap_socket(connection, server_side=True)
        self._unread, self._is_in_message = b"", False
        with connection, suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(b"220 hello\r\n")
            while octets := connection.recv(1_000_000):
                self._unread += octets
                self._say(connection, b"".join(self._answers_to_all()))

    def _answers_to_all(self):
        while (end := self._unread.find(b"\r\n.\r\n" if self._is_in_message else b"\r\n")) >= 0:
            if self._is_in_message:
                self.messages.append(self._unread[2:end])
                self._unread, self._is_in_message = self._unread[end + 5 :], False
                yield self._answer("DOT")
                continue
            line, self._unread = self._unread[:end], self._unread[end + 2 :]
            word = line[:4].decode().upper()
            answer = self._answer(word, to_first=b"leserin0@" in line)
            if word == "DATA" and answer.startswith(b"354"):
                # A lone dot ends an empty message, so the end of the line before it has to stay.
                self._unread, self._is_in_message = b"\r\n" + self._unread, True
            yield b"250-server.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n" if word == "EHLO" else answer

    def _answer(self, word, *, to_first=False):
        # The first envelope is answered alone, so that what is odd comes among other answers.
        is_odd = word in self._answers and not (to_first or (word in {"DATA", "MAIL"} and not self.messages))
        standard = "354 go on\r\n" if word == "DATA" else "250 2.0.0 ok\r\n"
        return (self._answers[word] if is_odd else standard).encode()

    def _say(self, connection, octets):
        self.runs.append(octets)
        if octets == self._last:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            connection.sendall(octets)
            connection.shutdown(socket.SHUT_WR)
            return
        for part in (octets[: self._cut], octets[self._cut :]):
            if part:
                connection.sendall(part)
                time.sleep(0.002 if self._cut else 0)


def talk_at_once(settings, count=3, **script):
    with AtOnce(**script) as server:
        point_at(settings, server.port, timeout=1)
        results = send(make_parcels(count), connections=1)
    return server, results


USUAL = b"250 2.0.0 ok\r\n250 2.0.0 ok\r\n250 2.0.0 ok\r\n354 go on\r\n"


@pytest.fixture
def usual(monkeypatch):
    """How often four usual answers were taken at once."""
    take, taken = Session.take_usual_answers, []

    def watch(session):
        found = take(session)
        taken.extend([1] if found else [])
        return found

    monkeypatch.setattr(Session, "take_usual_answers", watch)
    return taken


def test_usual_answers_are_taken_at_once_wherever_they_are_cut(settings, usual):
    for cut in range(len(USUAL)):
        server, results = talk_at_once(settings, cut=cut)

        assert results == [Result(Outcome.ACCEPTED, "")] * 3
        assert server.messages == [DOTTED] * 3
        assert server.runs.count(USUAL) == 2
        if cut == 0:
            assert len(usual) == 2


@pytest.mark.skipif(not hasattr(socket, "TCP_CORK"), reason="only Linux puts both into one packet")
def test_a_server_that_hangs_up_with_its_answers_is_not_parted_from_twice(certificate, settings, monkeypatch):
    monkeypatch.setattr("newsroom.mail.pipelining.LONGEST_ANSWER_AGE", -1.0)
    asked: Counter[int] = Counter()

    def may_begin(index):
        asked[index] += 1
        return index != 1 or asked[index] == 1

    with AtOnce(tls=certificate, last=USUAL) as server:
        point_at(settings, server.port)
        settings.EMAIL_USE_SSL = True
        results = send(make_parcels(3), may_begin=may_begin, connections=1)

    assert outcomes(results) == [Outcome.ACCEPTED, None, Outcome.ACCEPTED]
    assert len(server.messages) == 2


ODD = [
    "250-2.1.0 well\r\n250 ok\r\n", "250\r\n", "251 2.1.5 elsewhere\r\n", "354 odd\r\n", "421 4.3.0 bye\r\n",
    "450 4.2.1 later\r\n", "550 5.1.1 no\r\n", "535 5.7.8 who\r\n", "hello?\r\n", "25\r\n", "250 ok\n",
    "250 ok\r\n250 ok\r\n", "354 go on\r\n250 ok\r\n", "",
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("word", ["MAIL", "RCPT", "DATA", "DOT"])
def test_an_odd_answer_among_usual_ones_means_the_same_together_and_apart(word, odd, settings):
    at_once, whole = talk_at_once(settings, count=4, answers={word: odd})
    # Within the first line, so that no run can be read as a whole.
    in_two, apart = talk_at_once(settings, count=4, answers={word: odd}, cut=2)

    assert whole == apart
    assert at_once.messages == in_two.messages
    accepted = [result for result in whole if result and result.outcome is Outcome.ACCEPTED]
    assert len(accepted) <= len(at_once.messages)


# Sessions are recycled


@pytest.mark.parametrize(
    ("extensions", "limit"),
    [(KINDS[0], "MESSAGES_PER_PIPELINE"), (CHUNKED, "MESSAGES_PER_PIPELINE"), ((), "MESSAGES_PER_SESSION")],
)
def test_a_session_ends_after_so_many_messages_and_the_next_goes_on(extensions, limit, settings, monkeypatch):
    monkeypatch.setattr(f"newsroom.mail.sessions.{limit}", 4)
    server, results = talk(settings, count=10, extensions=extensions)

    assert outcomes(results) == [Outcome.ACCEPTED] * 10
    assert len(server.messages) == 10
    assert server.sessions == 3
    assert [command for command in server.commands if command == b"QUIT\r\n"] == [b"QUIT\r\n"] * 3
    assert _mails_by_session(server) == [4, 4, 2]


@pytest.mark.parametrize("extensions", [KINDS[0], CHUNKED, ()])
def test_a_session_ends_after_so_many_seconds_and_the_next_goes_on(extensions, settings, monkeypatch):
    monkeypatch.setattr("newsroom.mail.sessions.SECONDS_PER_SESSION", 0.2)
    server, results = talk(settings, count=12, extensions=extensions, pause=0.02, timeout=5)

    assert outcomes(results) == [Outcome.ACCEPTED] * 12
    assert len(server.messages) == 12
    assert server.sessions > 1
    assert all(_mails_by_session(server))  # each new session is put to use


def test_what_a_session_carried_is_counted_over_many_calls(settings, monkeypatch):
    monkeypatch.setattr("newsroom.mail.sessions.MESSAGES_PER_PIPELINE", 5)
    pipeline = Pipeline(connections=1)
    with Scripted() as server:
        point_at(settings, server.port)
        told = [pipeline.hand_over(make_parcels(2, first=first), may_begin=lambda index: True) for first in range(6)]
        pipeline.close()

    assert [outcomes(results) for results in told] == [[Outcome.ACCEPTED] * 2] * 6
    assert _mails_by_session(server) == [5, 5, 2]


def _mails_by_session(server):
    sessions = b"".join(server.commands).upper().split(b"EHLO ")[1:]
    return [session.count(b"MAIL FROM:") for session in sessions]
