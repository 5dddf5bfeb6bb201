"""Children of the demo: started together, watched, and ended in order, whatever ends the demo."""

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from newsroom.management.guard import Guard, end_groups

PATIENCE = 10.0  # seconds a child has for finishing what it is at
LAST_LINES = 15
LOG_LIMIT = 5_000_000  # bytes of an old log that a new start moves aside


class ChildDiedError(Exception):
    """A child ended without being asked to; the message says which, how, and what it said last."""


class Child:
    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    @property
    def last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LAST_LINES:])

    @property
    def fate(self) -> str:
        code = self.process.returncode
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


class Family:
    """The children, in the order of their start; they end in the opposite order."""

    def __init__(self, *, folder: Path, environment: Mapping[str, str], logs: Path) -> None:
        self._folder = folder
        self._environment = dict(environment)
        self._logs = logs
        self._guard = Guard()
        self._children: list[Child] = []
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, command: Sequence[str], *, pass_fds: Sequence[int] = ()) -> Child:
        log = self._logs / f"{name}.log"
        if log.exists() and log.stat().st_size > LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which then ends its children in order
                pass_fds=pass_fds,
            )
        self._guard.watch(process)
        child = Child(name, process, log)
        self._children.append(child)
        return child

    def check(self) -> None:
        """Raise ChildDiedError if a child is gone."""
        for child in self._children:
            if not child.is_running:
                raise ChildDiedError(f"The {child.name} {child.fate}. {child.log} ends with:\n\n{child.last_words}")

    def end(self) -> None:
        """End all children, the last started first; each may finish what it is at."""
        for child in reversed(self._children):
            _end(child)
            self._guard.forget(child.process)
        self._children.clear()
        self._guard.close()


def _end(child: Child) -> None:
    if child.is_running:
        child.process.terminate()
    deadline = time.monotonic() + PATIENCE
    while child.is_running and time.monotonic() < deadline:
        time.sleep(0.05)
    end_groups({child.process.pid: signal.SIGTERM}, patience=1)  # what it started and left behind
    child.process.wait()
