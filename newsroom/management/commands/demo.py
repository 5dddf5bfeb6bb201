import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.utils import timezone

from newsroom.management.supervision import ChildDiedError, Family

HOST = "127.0.0.1"
FIRST_PORT = 8000
PORTS_TO_TRY = 20
START_LIMIT = 60.0  # seconds until the site must answer
STAFF_NAME = "redaktion"
STAFF_ADDRESS = "redaktion@wochenblitz.example"
QUEUES = "fast,send,fetch,default"


class Command(BaseCommand):
    help = "Run the whole site on this machine: web server, worker, beat and a mailbox for whatever it sends."
    requires_system_checks = []  # they ask the database, which the first start has yet to make

    is_stopping = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=None, help=f"port of the site (else {FIRST_PORT}, or the last)")

    def handle(self, *args: Any, **options: Any) -> None:
        with only_one() as note, _interruptible():
            try:
                self._run(note, wished_port=options["port"])
            except KeyboardInterrupt:
                self._say("\nStopped before the site was up. `make demo` goes on from here.")

    def _run(self, note: TextIO, *, wished_port: int | None) -> None:
        listener = self._listen(wished_port or last_port(note))
        port = listener.getsockname()[1]
        environment = os.environ | {
            "DEMO": "true",
            "SITE_URL": f"http://{HOST}:{port}",
            "VAR_DIR": str(settings.VAR_DIR),
            # Kombu moves messages through the temporary folder; across file systems a half-copied one ends the worker.
            "TMPDIR": str(settings.VAR_DIR / "broker" / "tmp"),
            "PYTHONUNBUFFERED": "1",
        }
        write_note(note, port=port)
        self._prepare(environment)
        family = Family(folder=settings.BASE_DIR, environment=environment, logs=settings.VAR_DIR / "log")
        self._stop_on_signals()
        try:
            self._start(family, listener)
            self._wait_for_site(family, f"{environment['SITE_URL']}/health/ready")
            if not self.is_stopping:
                self._introduce(environment["SITE_URL"])
            self._watch(family, environment)
        except ChildDiedError as death:
            self._say("")
            raise CommandError(str(death)) from None
        finally:
            self._say("\nStopping …")
            family.end()
            self._say(f"Stopped. Everything is kept in {shown(settings.VAR_DIR)}; `make demo` goes on from here.")

    # Before the start

    def _listen(self, port: int) -> socket.socket:
        """Open the site's port here and hand it to the web server, so that nobody can take it in between."""
        for candidate in [*range(port, port + PORTS_TO_TRY), 0]:
            try:
                listener = socket.create_server((HOST, candidate), backlog=128)
            except OSError:
                continue
            if candidate != port:
                self._say(f"Port {port} is taken, so the site is on port {listener.getsockname()[1]} this time.")
            return listener
        raise CommandError("No port is free on this machine.")

    def _prepare(self, environment: dict[str, str]) -> None:
        self._say("Preparing the database …")
        call_command("migrate", interactive=False, verbosity=0)
        if static_files_are_stale():
            self._say("Collecting style sheets and pictures …")
            call_command("collectstatic", interactive=False, verbosity=0)
        self._say("Filling the sample newsroom …")
        load_sample(environment)
        self.password = staff_password()
        connection.close()
        empty_broker()

    # While it runs

    def _start(self, family: Family, listener: socket.socket) -> None:
        self._say("Starting web server, worker and beat …")
        number = listener.fileno()
        web = ["gunicorn", "newsroom.wsgi", f"--bind=fd://{number}", "--workers=2", "--threads=4"]
        celery = ["celery", "-A", "newsroom.celery"]
        # One process, because SQLite wants one that delivers; no chatter between workers, because there is only one.
        worker = ["worker", f"--queues={QUEUES}", "--concurrency=1", "--without-gossip", "--without-mingle"]
        python = [sys.executable, "-m"]
        family.start("web", [*python, *web, "--graceful-timeout=5", "--no-control-socket"], pass_fds=[number])
        family.start("worker", [*python, *celery, *worker, "--without-heartbeat", "--loglevel=INFO"])
        family.start("beat", [*python, *celery, "beat", "--pidfile=", "--loglevel=INFO"])
        listener.close()

    def _wait_for_site(self, family: Family, url: str) -> None:
        deadline = time.monotonic() + START_LIMIT
        while not answers(url) and not self.is_stopping:
            family.check()
            if time.monotonic() > deadline:
                raise CommandError(f"The site does not answer. Look into {shown(settings.VAR_DIR / 'log')}.")
            time.sleep(0.1)

    def _watch(self, family: Family, environment: dict[str, str]) -> None:
        """Wait for the end. A demo left running over midnight gets the new day's articles, as one started then does."""
        today = timezone.localdate()
        while not self.is_stopping:
            family.check()
            if timezone.localdate() != today:
                today = timezone.localdate()
                self._publish(environment, today)
            time.sleep(0.3)

    def _publish(self, environment: dict[str, str], today: date) -> None:
        try:
            load_sample(environment)
        except CommandError as error:
            self._say(f"The articles of {today:%d.%m.%Y} could not be published:\n{error}")
        else:
            self._say(f"A new day: the articles of {today:%d.%m.%Y} are published.")

    def _introduce(self, url: str) -> None:
        lines = {
            "Site": f"{url}/",
            "Sign up": f"{url}/newsletter/",
            "Mailbox": f"{url}/postfach/   (every mail the site sends)",
            "Admin": f"{url}/admin/   user {STAFF_NAME}, password {self.password}",
            "Logs": shown(settings.VAR_DIR / "log") + "/",
            "Begin anew": "make clean   (or remove " + shown(settings.VAR_DIR) + ")",
        }
        width = max(len(name) for name in lines)
        self._say("\nNewsroom is running.\n")
        for name, value in lines.items():
            self._say(f"  {name:<{width}}  {value}")
        self._say(
            "\nSign up, confirm in the mailbox, and today's digest follows within two minutes.\nCtrl-C ends it all."
        )

    def _stop_on_signals(self) -> None:
        def stop(number: int, frame: FrameType | None) -> None:
            self.is_stopping = True

        for number in END_SIGNALS:
            signal.signal(number, stop)

    def _say(self, text: str) -> None:
        # A closed terminal must not keep the children from being ended.
        try:
            self.stdout.write(text)
            self.stdout.flush()
        except OSError:
            pass


END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let each of the signals that end the demo interrupt it like Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in END_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def only_one() -> Iterator[TextIO]:
    """Hold the one lock there is for a `var` folder; say who holds it if someone else does."""
    with (settings.VAR_DIR / "demo.lock").open("a+") as note:
        try:
            fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            note.seek(0)
            pid, _, port = note.read().partition(" ")
            raise CommandError(
                f"The demo is running already: http://{HOST}:{port.strip()}/ (process {pid}). "
                "End it with Ctrl-C in its terminal, or set VAR_DIR to another folder for a second one."
            ) from None
        yield note


def write_note(note: TextIO, *, port: int) -> None:
    note.seek(0)
    note.truncate()
    note.write(f"{os.getpid()} {port}\n")
    note.flush()


def last_port(note: TextIO) -> int:
    """Return the port of the last time, because the links in the mails of that time point there."""
    note.seek(0)
    _pid, _, port = note.read().strip().partition(" ")
    return int(port) if port.isdigit() else FIRST_PORT


def static_files_are_stale() -> bool:
    manifest = settings.STATIC_ROOT / "staticfiles.json"
    if not manifest.exists():
        return True
    # The packages' own files change with the lock, which is older than its installation.
    sources = [*settings.BASE_DIR.glob("requirements*.txt")]
    for app in apps.get_app_configs():
        sources += Path(app.path, "static").rglob("*")
    collected = manifest.stat().st_mtime
    return any(source.stat().st_mtime > collected for source in sources)


def load_sample(environment: dict[str, str]) -> None:
    """Run load_sample as a process of its own: only that knows the address under which the site runs this time."""
    command = [sys.executable, "manage.py", "load_sample"]
    done = subprocess.run(command, cwd=settings.BASE_DIR, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(done.stderr)


def staff_password() -> str:
    """Return the password of the demo's staff account; the account is made if need be."""
    kept: Path = settings.VAR_DIR / "secrets" / "staff-password"
    user, is_new = User.objects.get_or_create(
        username=STAFF_NAME, defaults={"email": STAFF_ADDRESS, "is_staff": True, "is_superuser": True}
    )
    if not is_new and not (kept.exists() and user.check_password(kept.read_text())):
        return "as you set it"
    if is_new:
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        kept.touch(mode=0o600)
        kept.write_text(secrets.token_urlsafe(12))
        user.set_password(kept.read_text())
        user.save(update_fields=["password"])
    return kept.read_text()


def empty_broker() -> None:
    """Remove what the last run left: hints, every one of which the database gives again."""
    for folder in (settings.VAR_DIR / "broker").glob("*"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310  (our own address)
            return True
    except OSError:
        return False


def shown(path: Path) -> str:
    """Return the path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
