"""The demo as a stranger starts it: the real command, in a folder of its own, told nothing but a port."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

from newsroom.management.guard import Guard
from tests.processes import free_port

ROOT = Path(__file__).parent.parent.parent
READY = "Ctrl-C ends it all."
START_LIMIT = 90.0  # seconds
END_LIMIT = 40.0  # each child may finish what it is at


class Demo:
    """Starts the demo; `site`, `user` and `password` are what it printed."""

    def __init__(self, *, guard: Guard, folder: Path) -> None:
        self._guard = guard
        self._var = folder / "var"
        self._output = folder / "demo.log"
        self._process = self._start()
        guard.watch(self._process)
        introduction = self._wait_for_introduction()
        self.site = _found(r"Site\s+(http://\S+)/", introduction)
        self.user = _found(r"user (\S+),", introduction)
        self.password = _found(r"password (\S+)", introduction)

    def end(self) -> None:
        """End it as Ctrl-C does, and make sure that it left nothing behind."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        code = self._process.wait(timeout=END_LIMIT)
        self._guard.forget(self._process)
        assert code == 0, self._said
        assert not self._processes_left(), "The demo left processes behind."

    def let_sign_ups_expire(self, address: str) -> None:
        """Set the address's sign-ups back by a year, as if the link in the mail had been forgotten."""
        with sqlite3.connect(self._var / "newsroom.sqlite3", timeout=20) as database:
            change = (
                "UPDATE subscriptions_signup SET requested_at = datetime(requested_at, '-1 year'),"
                " expires_at = datetime(expires_at, '-1 year') WHERE address = ?"
            )
            assert database.execute(change, [address]).rowcount
        database.close()

    def add_readers(self, newsletter: str, count: int) -> None:
        """Give a newsletter so many readers, as if they had signed up long ago."""
        with sqlite3.connect(self._var / "newsroom.sqlite3", timeout=20) as database:
            newsletters = dict(database.execute("SELECT name, id FROM subscriptions_newsletter"))
            for number in range(count):
                address = f"leser{number}.{newsletters[newsletter]}@viele.example"
                reader = database.execute(
                    "INSERT INTO subscriptions_subscriber (uuid, address, address_key, language, created_at)"
                    " VALUES (?, ?, ?, 'de', datetime('now'))",
                    [uuid4().hex, address, address],
                ).lastrowid
                database.execute(
                    "INSERT INTO subscriptions_subscription (uuid, subscriber_id, newsletter_id, state, active_since)"
                    " VALUES (?, ?, ?, 'active', datetime('now', '-1 day'))",
                    [uuid4().hex, reader, newsletters[newsletter]],
                )
        database.close()

    def seem_restored(self) -> None:
        """Let the file of the high-water mark be ahead of the database, as after a restored backup."""
        path = self._var / "high-water.json"
        deadline = time.monotonic() + START_LIMIT
        while not path.exists():
            assert time.monotonic() < deadline, "Nothing has looked for due digests."
            time.sleep(0.5)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"number": 10**9}))

    def logs(self) -> str:
        return "\n".join(f"--- {path.stem}\n{path.read_text()}" for path in sorted((self._var / "log").glob("*.log")))

    def _start(self) -> subprocess.Popen[bytes]:
        # Nothing of the test run's settings: a fresh terminal knows none of them.
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        environment = kept | {"VAR_DIR": str(self._var), "ENV_FILE": os.devnull}
        command = [sys.executable, "manage.py", "demo", f"--port={free_port()}"]
        with self._output.open("wb") as output:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _wait_for_introduction(self) -> str:
        deadline = time.monotonic() + START_LIMIT
        while READY not in self._said:
            assert self._process.poll() is None, self._said
            assert time.monotonic() < deadline, self._said
            time.sleep(0.1)
        return self._said

    @property
    def _said(self) -> str:
        return self._output.read_text()

    def _processes_left(self) -> list[int]:
        """Return the processes that run on the demo's folder, where the system tells (Linux)."""
        mark = f"VAR_DIR={self._var}\0".encode()
        left = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in environ.read_bytes() + b"\0":
                    left.append(int(environ.parent.name))
            except OSError:  # gone in the meantime, or someone else's
                continue
        return left


def answers(site: str) -> bool:
    host, _, port = site.removeprefix("http://").partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, text
    return match[1]
