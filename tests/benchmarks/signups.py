"""Measure how many sign-ups a second the site takes, beside django-newsletter's subscribe view.

    make bench N=3000 ROUNDS=3 ARGS="--signups sync threads granian"

Same server program, same PostgreSQL, turn about within one run. Each request has an address of its own and posts the
form as a browser does, with the stamp of the page. A run after which any sign-up lacks a row is a failure.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from selectors import EVENT_READ, BaseSelector, DefaultSelector, SelectorKey
from typing import cast
from urllib.parse import urlencode, urlsplit, urlunsplit
from urllib.request import urlopen

import psutil
import psycopg

from newsroom.management.guard import Guard
from tests.benchmarks import contenders
from tests.benchmarks.metering import Cost, Meter
from tests.benchmarks.report import Range
from tests.benchmarks.scene import COUNTED, DURABLE
from tests.conftest import ENVIRONMENT
from tests.processes import ROOT, free_port
from tests.servers import Postgres

LATEST = ROOT / "var" / "bench" / "signups.json"
GRANIAN = "granian==2.8.7"
GRANIAN_FOLDER = ROOT / "var" / "bench" / GRANIAN
CLIENTS = 8
# So that each worker and thread has its connection, its statements and its templates; and no table is empty when it is
# analysed, for a foreign key would be looked up by reading all of it, as was planned once for a connection.
WARM_UP = 500
WORKERS = "2"
SITE_URL = ENVIRONMENT["SITE_URL"]
NAMES = {"newsroom": "newsroom.wsgi", "django-newsletter": "tests.benchmarks.drivers.django_newsletter_site"}
WHOLE = """
SELECT count(*) FROM subscriptions_signup sign_up
JOIN subscriptions_consentrecord record ON record.subject = sign_up.uuid AND record.type = 'requested'
JOIN subscriptions_consentpayload payload ON payload.record_id = record.id AND payload.address_key = sign_up.address_key
JOIN mail_outboxmail mail ON mail.reference = sign_up.uuid AND mail.kind = 'sign_up'
WHERE sign_up.address LIKE %(pattern)s
AND (SELECT count(*) FROM subscriptions_agreedtext agreed WHERE agreed.sign_up_id = sign_up.id) = 2
"""
KEPT = "SELECT count(*) FROM newsletter_subscription WHERE email LIKE %(pattern)s"


_asked = count()


class Failed(Exception):
    """A run that is no result."""


@dataclass(frozen=True, slots=True)
class Result:
    name: str
    server: str
    n: int
    requests_per_s: Range
    cpu_s_per_1000: Range
    db_cpu_s_per_1000: Range
    sql_per_request: Range
    clients_cpu_s_per_1000: Range

    @classmethod
    def of(cls, name: str, server: str, n: int, costs: Sequence[Cost]) -> "Result":
        return cls(
            name,
            server,
            n,
            Range.over(costs, lambda cost: n / cost.seconds),
            Range.over(costs, lambda cost: cost.cpu_seconds / n * 1000),
            Range.over(costs, lambda cost: cost.db_cpu_seconds / n * 1000),
            Range.over(costs, lambda cost: cost.statements / n),
            Range.over(costs, lambda cost: cost.sink_cpu_seconds / n * 1000),
        )


class Clients:
    """What sends the forms: this process."""

    @property
    def cpu(self) -> float:
        return time.process_time()


class Scene:
    """A PostgreSQL that keeps what it confirms, with a database for each of the two sites."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.folder = Path(tempfile.mkdtemp(prefix="newsroom-signups-"))
        guard.remove_at_end(self.folder)
        self.postgres = Postgres(guard, options=[*DURABLE, *COUNTED])
        self.watcher = psycopg.connect(self.postgres.url, autocommit=True)
        self.watcher.execute("CREATE EXTENSION pg_stat_statements")
        self.watcher.execute("SET pg_stat_statements.track = 'none'")
        self.watcher.execute("CREATE DATABASE others")
        others = urlunsplit(urlsplit(self.postgres.url)._replace(path="/others"))
        self.databases = {"newsroom": self.postgres.url, "django-newsletter": others}
        self.environment = {
            **os.environ,
            **ENVIRONMENT,
            "DJANGO_SETTINGS_MODULE": "newsroom.settings",
            "VAR_DIR": str(self.folder / "var"),
            "DATABASE_URL": self.postgres.url,
            "TRUSTED_PROXY_COUNT": "1",
            "BENCH_DATABASE_URL": others,
            "EMAIL_PORT": "25",
        }
        self._python("manage.py", "migrate", "--verbosity=0")
        self._python("manage.py", "collectstatic", "--noinput", "--verbosity=0")
        self._python("-c", MAKE_NEWSLETTERS)
        self._python("-m", NAMES["django-newsletter"], "make", others=True)

    @contextmanager
    def serve(self, name: str, server: str) -> Iterator[tuple[int, int]]:
        """Run a site, and give its port and its process."""
        port = free_port()
        command = [*COMMANDS[server](port), NAMES[name] + (":application" if server == "granian" else "")]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=self._with_packages(others=name != "newsroom", granian=server == "granian"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.guard.watch(process)
        try:
            _wait_for(port, process, self.folder / f"{name}.log")
            yield port, process.pid
        finally:
            process.terminate()
            process.wait(timeout=30)
            self.guard.forget(process)

    def tidy(self) -> None:
        for url in self.databases.values():
            with psycopg.connect(url, autocommit=True) as database:
                database.execute("VACUUM ANALYZE")
                database.execute("CHECKPOINT")

    def _python(self, *command: str, others: bool = False) -> None:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=self._with_packages(others=others),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Failed(done.stderr[-2000:])

    def _with_packages(self, *, others: bool, granian: bool = False) -> dict[str, str]:
        # With the same Python and the same server program for both; only the packages differ.
        folders = [str(GRANIAN_FOLDER)] if granian else []
        if others:
            folders += [
                str(path) for path in Path(contenders.python_of_others()).parent.parent.glob("lib/*/site-packages")
            ]
        return self.environment | {"PYTHONPATH": os.pathsep.join(folders)}


MAKE_NEWSLETTERS = """
import django; django.setup()
from tests.makers import make_newsletter
for slug in ("der-tag", "die-woche", "das-land"): make_newsletter(slug=slug)
"""
COMMANDS: dict[str, Callable[[int], list[str]]] = {
    "sync": lambda port: ["-m", "gunicorn", f"--bind=127.0.0.1:{port}", f"--workers={WORKERS}"],
    "threads": lambda port: ["-m", "gunicorn", f"--bind=127.0.0.1:{port}", f"--workers={WORKERS}", "--threads=4"],
    "granian": lambda port: [
        "-m", "granian", "--interface=wsgi", "--no-ws", "--host=127.0.0.1", f"--port={port}",
        f"--workers={WORKERS}", "--blocking-threads=4",
    ],
}  # fmt: skip


def run(requests: int, *, rounds: int, servers: Sequence[str] = ()) -> int:
    """Measure, print the table and keep it; return 1 if any sign-up lacks a row."""
    guard = Guard()
    try:
        return _measure(guard, requests, rounds=rounds, servers=servers or ["sync"])
    finally:
        guard.close()


def _measure(guard: Guard, n: int, *, rounds: int, servers: Sequence[str]) -> int:
    if "granian" in servers:
        _install_granian()
    scene = Scene(guard)
    runs = [(name, server) for server in servers for name in NAMES]
    costs: dict[tuple[str, str], list[Cost]] = {run: [] for run in runs}
    for number in range(1, rounds + 1):
        for run in runs:
            try:
                costs[run].append(_run(scene, *run, n=n, mark=f"{number}-{run[1]}"))
            except (Failed, OSError) as error:
                print(f"FAILED  {' '.join(run)}: {error}")
                return 1
            print(f"round {number}: {' '.join(run):28} {n / costs[run][-1].seconds:.0f}/s", file=sys.stderr, flush=True)
    results = [Result.of(*run, n, costs[run]) for run in runs]
    LATEST.parent.mkdir(parents=True, exist_ok=True)
    LATEST.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    print(as_table(results, rounds=rounds))
    return 0


def as_table(results: Sequence[Result], *, rounds: int) -> str:
    lines = [
        f"{results[0].n} sign-ups a run, {rounds} rounds: median (least to most)",
        "",
        "| | server | sign-ups/s | CPU-s/1000 | DB CPU-s/1000 | clients' | SQL each | times |",
        "|---|---|---|---|---|---|---|---|",
    ]
    others = {each.server: each.requests_per_s.median for each in results if each.name != "newsroom"}
    for each in results:
        figures = [_cell(each.requests_per_s, 0), _cell(each.cpu_s_per_1000, 2), _cell(each.db_cpu_s_per_1000, 2)]
        figures += [f"{each.clients_cpu_s_per_1000.median:.2f}", f"{each.sql_per_request.median:.1f}"]
        times = f"{each.requests_per_s.median / others[each.server]:.1f}"
        lines.append(f"| `{each.name}` | {each.server} | {' | '.join(figures)} | {times} |")
    return "\n".join(lines)


def _cell(found: Range, digits: int) -> str:
    return f"{found.median:.{digits}f} ({found.min:.{digits}f} to {found.max:.{digits}f})"


def _run(scene: Scene, name: str, server: str, *, n: int, mark: str) -> Cost:
    with scene.serve(name, server) as (port, pid):
        _wait_until_idle(pid)  # the socket is there before the workers are
        build = _site_request(port) if name == "newsroom" else _other_request
        _send([build(f"warm-{mark}", number) for number in range(WARM_UP)], port)
        scene.tidy()
        _wait_until_idle(pid)
        requests = [build(f"run-{mark}", number) for number in range(n)]
        meter = Meter([pid], postgres=scene.postgres.process.pid, database=scene.watcher, receiver=Clients())
        _send(requests, port)
        cost = meter.end()
    with psycopg.connect(scene.databases[name]) as database:
        found = database.execute(WHOLE if name == "newsroom" else KEPT, {"pattern": f"run-{mark}-%"}).fetchone()
    if found != (n,):
        raise Failed(f"{found} of {n} sign-ups have all their rows")
    return cost


def _site_request(port: int) -> Callable[[str, int], bytes]:
    with urlopen(f"http://127.0.0.1:{port}/newsletter/") as answer:
        page = answer.read().decode()
    stamp = re.findall(r'name="stamp" value="([^"]+)"', page)[0]
    fields = {"newsletters": "der-tag", "stamp": stamp, "url": ""}
    return lambda mark, number: _request("/newsletter/", number, {"email": _address(mark, number), **fields})


def _other_request(mark: str, number: int) -> bytes:
    return _request("/newsletter/der-tag/subscribe/", number, {"email_field": _address(mark, number), "name_field": ""})


def _address(mark: str, number: int) -> str:
    return f"{mark}-{number}@mail{number % 50}.example"


def _request(path: str, number: int, fields: dict[str, str]) -> bytes:
    body = urlencode(fields).encode()
    network = next(_asked)  # readers rarely share one; the limit counts all the same
    head = [
        f"POST {path} HTTP/1.1",
        f"Host: {urlsplit(SITE_URL).netloc}",
        f"Origin: {SITE_URL}",
        f"X-Forwarded-For: 10.{network >> 8 & 255}.{network & 255}.1",
        "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language: de,en;q=0.5",
        "Content-Type: application/x-www-form-urlencoded",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def _send(requests: Sequence[bytes], port: int) -> None:
    """Send them from several clients, each over a connection it keeps as long as the server does.

    One thread does for all: clients that compete for cores with the server would be measured with it.
    """
    waiting = iter(requests)
    with DefaultSelector() as selector:
        try:
            for request in islice(waiting, CLIENTS):
                _ask(selector, _connect(port), request)
            while selector.get_map():
                answers = selector.select(timeout=60)
                if not answers:
                    raise Failed("the server does not answer")
                for key, _events in answers:
                    _take_answer(selector, key, waiting, port)
        finally:
            for key in list(selector.get_map().values()):
                cast(socket.socket, key.fileobj).close()


def _connect(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def _ask(selector: BaseSelector, client: socket.socket, request: bytes) -> None:
    client.sendall(request)
    selector.register(client, EVENT_READ, data=[])


def _take_answer(selector: BaseSelector, key: SelectorKey, waiting: Iterator[bytes], port: int) -> None:
    client = cast(socket.socket, key.fileobj)
    received = client.recv(65536)
    key.data.append(received)
    answer = b"".join(key.data)
    if received and not answer.endswith(b"\r\n\r\n"):  # an answer to these forms has no body
        return
    if not answer.startswith((b"HTTP/1.1 302", b"HTTP/1.1 303")):
        raise Failed(answer[:300].decode(errors="replace"))
    key.data.clear()
    request = next(waiting, None)
    if request is None or b"connection: close" in answer.lower():
        selector.unregister(client)
        client.close()
        if request is not None:
            _ask(selector, _connect(port), request)
    else:
        client.sendall(request)


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(log.read_text()[-2000:]) from None
            time.sleep(0.1)


def _wait_until_idle(server: int) -> None:
    used, now = -1.0, _cpu_seconds(server)
    while now - used > 0.01:
        time.sleep(0.5)
        used, now = now, _cpu_seconds(server)


def _cpu_seconds(server: int) -> float:
    process = psutil.Process(server)
    return sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True)))


def _install_granian() -> None:
    if GRANIAN_FOLDER.exists():
        return
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", GRANIAN_FOLDER, GRANIAN]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{GRANIAN} cannot be installed: {done.stderr[-500:]}")
