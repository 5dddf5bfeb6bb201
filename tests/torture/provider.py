"""A mail provider in a process of its own, whose append-only log is the only truth a torture test believes.

    python -m tests.torture.provider http|smtp FOLDER --seed N [--host ADDRESS]

It writes its port to FOLDER/port and each thing that happens as a line of JSON to FOLDER/log before it answers; what it
does wrong stands in FOLDER/faults.json and holds from the moment that file changes. Over HTTP it is Postmark, Resend
(with idempotency keys) and Mailgun.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import random
import re
import time
import uuid
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.stand_ins import Request, bare_addresses, form_fields

LONGEST_SILENCE = 600.0


@dataclass
class Faults:
    """What the provider does wrong from now on.

    `mode` is what happens to a call with the probability `chance`: "unanswered" (taken, never answered), "throttle"
    (429 or 451, with `retry_after`; if `rate` is set, only to what comes faster than so many a second), "fault_before"
    and "fault_after" (500 before or after taking the mail; with SMTP 421, or a session cut), "deny" (401 or 535).
    `poison` are addresses whose call is refused. `hold` stops the first session that comes to its "greeting", before
    its "recipient" or before the "answer", once `hold_after` mails were taken, until `hold` changes. `cut` ends the
    k-th session at its k-th mail: "before" it is begun, "within" it (its sender may already have said the dot), or
    "after" the dot.
    """

    mode: str = ""
    chance: float = 1.0
    retry_after: str = "1"
    rate: float = 0.0
    delay: float = 0.0
    poison: list[str] = field(default_factory=list)
    hold: str = ""
    hold_after: int = 0
    cut: str = ""


class Carrier:
    """What both kinds share: the log, the faults, the dice."""

    def __init__(self, folder: Path, *, seed: int) -> None:
        self.taken = 0
        self._dice = random.Random(seed)
        self._log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._faults_file = folder / "faults.json"
        self._read_at = 0
        self._faults = Faults()
        self._held = 0
        self._tokens, self._filled_at = 0.0, time.monotonic()

    @property
    def faults(self) -> Faults:
        with contextlib.suppress(FileNotFoundError):
            if (changed_at := self._faults_file.stat().st_mtime_ns) != self._read_at:
                self._faults = Faults(**json.loads(self._faults_file.read_text()))
                self._read_at = changed_at
        return self._faults

    def note(self, what: str, **values: Any) -> None:
        os.write(self._log, json.dumps({"what": what, "at": time.time(), **values}).encode() + b"\n")

    def take(self, to: str, **values: Any) -> None:
        self.taken += 1
        self.note("taken", to=to, **values)

    def fault(self) -> str:
        """Throw the dice for one call."""
        faults = self.faults
        if faults.rate and self._has_room(faults.rate):
            return ""
        return faults.mode if faults.mode and self._dice.random() < faults.chance else ""

    def _has_room(self, rate: float) -> bool:
        """Take a token of a bucket that holds a second's worth."""
        now = time.monotonic()
        self._tokens = min(rate, self._tokens + (now - self._filled_at) * rate)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    async def hold_at(self, stage: str) -> None:
        """Wait here, as long as the faults say so; only the first to come is held."""
        faults = self.faults
        if faults.hold != stage or self.taken < faults.hold_after or self._held == self._read_at:
            return
        mark = self._held = self._read_at
        self.note("held", stage=stage)
        while self.faults.hold == stage and self._read_at == mark:
            await asyncio.sleep(0.02)


class HttpProvider(Carrier):
    def __init__(self, folder: Path, *, seed: int) -> None:
        super().__init__(folder, seed=seed)
        self._calls = 0
        self._keys: dict[str, tuple[str, Any]] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while request := await _read_request(reader):
                answer = await self._answer(request, begun_at=time.time())
                if answer is None:
                    await asyncio.wait_for(reader.read(), LONGEST_SILENCE)
                    break
                writer.write(_as_http(*answer))
                await writer.drain()
        writer.close()

    async def _answer(self, request: Request, *, begun_at: float) -> tuple[int, Any, dict[str, str]] | None:
        self._calls += 1
        fault = self.fault()
        mails = _mails_of(request)
        self.note("call", number=self._calls, size=len(mails), fault=fault)
        match fault:
            case "throttle":
                return 429, {"message": "slow down"}, {"Retry-After": self.faults.retry_after}
            case "deny":
                return 401, {"message": "who are you?"}, {}
            case "fault_before":
                return 500, {"message": "oops"}, {}
        if poisoned := set(self.faults.poison) & {mail["to"] for mail in mails}:
            self.note("refused", to=sorted(poisoned))
            return (
                422 if request.path == "/email" else 400,
                {"ErrorCode": 300, "Message": "Invalid", "message": "no"},
                {},
            )
        await self.hold_at("recipient")
        answer = self._take(request, mails, begun_at=begun_at)
        await asyncio.sleep(self.faults.delay)
        await self.hold_at("answer")
        if fault == "fault_after":
            return 500, {"message": "oops"}, {}
        return None if fault == "unanswered" else answer

    def _take(
        self, request: Request, mails: list[dict[str, Any]], *, begun_at: float
    ) -> tuple[int, Any, dict[str, str]]:
        key, payload = request.headers.get("idempotency-key", ""), hashlib.sha256(request.body).hexdigest()
        if key in self._keys:
            known, answer = self._keys[key]
            self.note("replayed" if known == payload else "conflict", key=key, to=[mail["to"] for mail in mails])
            return (200, answer, {}) if known == payload else (409, {"name": "invalid_idempotent_request"}, {})
        for mail in mails:
            self.take(**mail, key=key, begun_at=begun_at, call=self._calls)
        answer = _answer_of(request, mails)
        if key:
            self._keys[key] = payload, answer
        return 200, answer, {}


def _mails_of(request: Request) -> list[dict[str, Any]]:
    """Return address, delivery and text of each mail that a call carries."""
    if request.path.endswith("/messages"):
        fields = form_fields(request)
        data = json.loads(fields.get("recipient-variables", ["{}"])[0])
        text = fields.get("text", [""])[0]
        to = [address for value in fields.get("to", []) for address in bare_addresses(value)]
        return [_mail(address, text, bool(data)) for address in to]
    message = json.loads(request.body)
    if "To" in message:
        names = {header["Name"].lower() for header in message.get("Headers", [])}
        return [_mail(each, message.get("TextBody", ""), "list-id" in names) for each in bare_addresses(message["To"])]
    names = {name.lower() for name in message.get("headers", {})}
    to = message["to"] if isinstance(message["to"], list) else [message["to"]]
    return [_mail(bare_addresses(each)[0], message.get("text", ""), "list-id" in names) for each in to]


def _mail(address: str, text: str, is_digest: bool) -> dict[str, Any]:
    """Say of a mail what the tests ask: a digest's content but for the reader's own links, another mail's links."""
    links = re.findall(r"https?://\S+", text)
    content = hashlib.sha256(re.sub(r"https?://\S+|%recipient\.\w+%", "", text).encode()).hexdigest()[:16]
    return {"to": address, "digest": is_digest, "content": content, "links": [] if is_digest else links}


def _answer_of(request: Request, mails: list[dict[str, Any]]) -> Any:
    number = str(uuid.uuid4())
    if request.path == "/email":
        return {"To": mails[0]["to"], "MessageID": number, "ErrorCode": 0, "Message": "OK", "SubmittedAt": "2026-01-01"}
    return {
        "id": f"<{number}@provider.example>" if request.path.endswith("/messages") else number,
        "message": "Queued.",
    }


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    headers = {name.lower(): value.strip() for name, _colon, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(unquote(first.split(" ")[1]), {**headers, "Content-Type": headers.get("content-type", "")}, body)


def _as_http(status: int, answer: Any, headers: dict[str, str]) -> bytes:
    body = json.dumps(answer).encode()
    lines = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} -\r\n{head}\r\n".encode() + body


class SmtpProvider(Carrier):
    extensions = ("PIPELINING", "CHUNKING", "8BITMIME", "SIZE 50000000")

    def __init__(self, folder: Path, *, seed: int) -> None:
        super().__init__(folder, seed=seed)
        self._sessions = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.hold_at("greeting")
        self._sessions += 1
        session, begun, to, begun_at = self._sessions, 0, "", 0.0
        _say(writer, "220 provider.example ESMTP")
        while line := await reader.readline():
            match line[:4].upper().rstrip():
                case b"EHLO":
                    _say(
                        writer,
                        "\r\n".join(["250-provider.example", *(f"250-{word}" for word in self.extensions), "250 HELP"]),
                    )
                case b"MAIL":
                    begun, begun_at, to = begun + 1, time.time(), ""
                    _say(writer, "250 2.1.0 ok")
                case b"RCPT":
                    to = bare_addresses(line.decode())[0]
                    await self.hold_at("recipient")
                    refused = to in self.faults.poison
                    _say(writer, "550 5.1.1 no such reader" if refused else "250 2.1.5 ok")
                    to = "" if refused else to
                case b"DATA" if not to:  # pipelined behind a recipient that was refused
                    _say(writer, "554 5.5.1 no valid recipients")
                case b"BDAT" if not to:
                    await reader.readexactly(_size_of(line))
                    _say(writer, "554 5.5.1 no valid recipients")
                case b"DATA" | b"BDAT":
                    size = _size_of(line) if line.startswith(b"BDAT") else None
                    if not await self._data(reader, writer, to, begun_at, size=size, cuts=begun == session):
                        return
                case b"QUIT":
                    _say(writer, "221 2.0.0 bye")
                    return
                case _:
                    _say(writer, "250 2.0.0 ok")
            await writer.drain()

    async def _data(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        to: str,
        begun_at: float,
        *,
        size: int | None,
        cuts: bool,
    ) -> bool:
        """Take a mail, a chunk of that size or one that a dot ends, or do what is wrong with it; False: it is over."""
        fault, cut = self.fault(), self.faults.cut if cuts else ""
        if cut != "before" and size is None:
            _say(writer, "354 go ahead")
            await writer.drain()
        if cut == "within":
            await reader.readline()
        if cut in {"before", "within"}:
            self.note("cut", stage=cut, to=to)
            writer.transport.abort()
            return False
        octets = await (reader.readuntil(b"\r\n.\r\n") if size is None else reader.readexactly(size))
        message = message_from_bytes(octets, policy=policy.default)
        match fault:
            case "throttle":
                _say(writer, "451 4.7.1 slow down")
                return True
            case "deny":
                _say(writer, "535 5.7.8 who are you?")
                return True
            case "fault_before":
                _say(writer, "421 4.3.0 oops")
                return False
        text = str(message.get_body(("plain",)).get_content())
        self.take(**_mail(to, text, "List-Id" in message), begun_at=begun_at, call=0)
        await asyncio.sleep(self.faults.delay)
        await self.hold_at("answer")
        if cut == "after" or fault == "fault_after":
            self.note("cut", stage="after", to=to)
            writer.transport.abort()
            return False
        if fault == "unanswered":
            await asyncio.wait_for(reader.read(), LONGEST_SILENCE)
            return False
        _say(writer, "250 2.0.0 taken")
        return True


def _size_of(line: bytes) -> int:
    _word, size, last = line.split()
    if last.upper() != b"LAST":
        raise ConnectionError("only whole messages come as chunks")
    return int(size)


def _say(writer: asyncio.StreamWriter, line: str) -> None:
    writer.write(f"{line}\r\n".encode())


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["http", "smtp"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--host", default="127.0.0.1")
    options = parser.parse_args()
    provider = (HttpProvider if options.kind == "http" else SmtpProvider)(options.folder, seed=options.seed)
    server = await asyncio.start_server(provider.serve, options.host, 0, limit=10_000_000)
    (options.folder / "port.new").write_text(str(server.sockets[0].getsockname()[1]))
    (options.folder / "port.new").rename(options.folder / "port")
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
