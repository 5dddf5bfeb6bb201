"""Real processes of the site for tests in which a process is the point: workers, beats, web servers, commands."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import redis
from django.db import connection

from newsroom.management.guard import Guard, end_groups

ROOT = Path(__file__).parent.parent
QUEUES = "fast,send,fetch,default"


class Processes:
    """Starts processes on the test's own database, with a broker and a `var` folder of their own.

    `env` may be changed before a start, for instance to point EMAIL_HOST at a stand-in.
    """

    def __init__(self, *, guard: Guard, folder: Path, broker_url: str) -> None:
        self.folder = folder
        self.root = ROOT  # where the code stands; a deploy changes it
        self.prefix: list[str] = []  # what a process is started by, such as `ip netns exec`
        self.patience = 2.0  # how many times longer to wait than a test asks: a busy machine is no failure
        self.env = os.environ | {
            "VAR_DIR": str(folder / "var"),
            "DATABASE_URL": database_url(),
            "BROKER_URL": broker_url,
            "PYTHONUNBUFFERED": "1",
        }
        self._guard = guard
        self._running: list[subprocess.Popen[bytes]] = []
        if broker_url.startswith("redis"):
            redis.Redis.from_url(broker_url).flushdb()

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a Python module or script in the project's folder; what it prints goes to the log of this name."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*self.prefix, sys.executable, *command],
                cwd=self.root,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard.watch(process)
        self._running.append(process)
        return process

    def worker(
        self, name: str = "worker", *, queues: str = QUEUES, concurrency: int = 1, waits: bool = True
    ) -> subprocess.Popen[bytes]:
        """Start a Celery worker and return once it takes tasks; at once if it `waits` for nothing."""
        options = [f"--hostname={name}@%h", f"--queues={queues}", f"--concurrency={concurrency}"]
        ready = self.log(name).count(" ready.")
        process = self.start(name, "-m", "celery", "-A", "newsroom.celery", "worker", "--loglevel=INFO", *options)
        if waits:
            self.wait_until(lambda: self.log(name).count(" ready.") > ready, process=process)
        return process

    def beat(self, name: str = "beat") -> subprocess.Popen[bytes]:
        """Start a Celery beat with a schedule file of its own."""
        schedule = f"--schedule={self.folder / name}.schedule"
        options = ["--loglevel=INFO", "--pidfile=", schedule]
        return self.start(name, "-m", "celery", "-A", "newsroom.celery", "beat", *options)

    def web(self, name: str = "web") -> str:
        """Start the web server as production does and return its URL, which SITE_URL says too from now on."""
        port = free_port()
        self.env["SITE_URL"] = url = f"http://127.0.0.1:{port}"
        self.manage("collectstatic", "--noinput", "--verbosity=0")
        options = [f"--bind=127.0.0.1:{port}", "--workers=1", "--threads=4"]
        process = self.start(name, "-m", "gunicorn", "newsroom.wsgi", *options)
        self.wait_until(lambda: _answers(f"{url}/health/live"), process=process)
        return url

    def manage(self, *command: str) -> str:
        """Run a management command to its end and return what it printed; a failure shows its words."""
        done = subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=self.root,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """End a process and all it started in the middle of whatever they do, as a power cut would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Ask a process to end, as a service manager would, and wait until it has."""
        process.terminate()
        process.wait(timeout=30 * self.patience)

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def wait_until(
        self,
        condition: Callable[[], object],
        *,
        timeout: float = 30,
        process: subprocess.Popen[bytes] | None = None,
    ) -> None:
        """Wait until the condition holds; fail with all logs when it does not, or when the process has ended."""
        deadline = time.monotonic() + timeout * self.patience
        while not condition():
            ended = process is not None and process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise AssertionError(("The process has ended.\n" if ended else "Waited in vain.\n") + self._all_logs())
            time.sleep(0.1)

    def end(self) -> None:
        running = [process for process in self._running if process.poll() is None]
        for process in running:
            os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + 5
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
        end_groups({process.pid: signal.SIGTERM for process in self._running}, patience=1)
        for process in self._running:
            process.wait()
            self._guard.forget(process)
        self._running.clear()

    def _all_logs(self) -> str:
        return "\n".join(f"--- {path.stem}\n{path.read_text()[-4000:]}" for path in sorted(self.folder.glob("*.log")))


def database_url() -> str:
    """Where another process finds the database this test runs on."""
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{database['NAME']}"
    user, password = quote(database["USER"], safe=""), quote(database["PASSWORD"], safe="")
    return f"postgresql://{user}:{password}@{database['HOST']}:{database['PORT']}/{database['NAME']}"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False
