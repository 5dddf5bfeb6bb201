"""Where the benchmark runs: servers of its own, so many readers of a newsletter, and a digest of about 41 kB."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

from newsroom.management.guard import Guard
from tests.benchmarks.drivers import protocol
from tests.benchmarks.sink import EXTENSIONS
from tests.conftest import ENVIRONMENT
from tests.processes import ROOT
from tests.servers import Postgres, start_valkey

ARTICLES = 23

# A database that keeps what it confirmed, other than the tests' one.
DURABLE = ["fsync=on", "synchronous_commit=on", "full_page_writes=on", "shared_buffers=256MB"]
COUNTED = ["shared_preload_libraries=pg_stat_statements"]

# A million in half a minute; the sinks count them by their numbers.
READERS = """
    INSERT INTO subscriptions_subscriber (uuid, address, address_key, language, created_at)
    SELECT gen_random_uuid(), address, address, 'de', now()
    FROM (SELECT format('leserin%%s@leser.example', number) FROM generate_series(1, %s) AS number) AS readers (address)
"""
# They got yesterday's digest, so that no day of sending is to be noted: the site does that once a month.
SUBSCRIPTIONS = """
    INSERT INTO subscriptions_subscription (uuid, subscriber_id, newsletter_id, state, active_since, last_sent_at)
    SELECT gen_random_uuid(), id, %s, 'active', now() - interval '2 days', now() - interval '1 day'
    FROM subscriptions_subscriber ORDER BY id LIMIT %s
"""
MAILABLE = """
    COPY (SELECT address FROM subscriptions_subscriber JOIN subscriptions_subscription ON subscriber_id =
          subscriptions_subscriber.id WHERE newsletter_id = %s AND state = 'active') TO STDOUT
"""


class Sink:
    """One of the benchmark's own receivers, in a process of its own."""

    def __init__(self, kind: str, guard: Guard, *, offers: Sequence[str] = EXTENSIONS) -> None:
        self._guard = guard
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.sink", kind, *offers],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        guard.watch(self._process)  # type: ignore[arg-type,unused-ignore]
        self.port = int(self._read())

    def reset(self) -> None:
        self._ask("reset")

    def move_away(self, seconds: float) -> None:
        """Have its answers take so long from now on, there and back."""
        self._ask(f"distance {seconds}")

    @property
    def total(self) -> int:
        return int(self._ask("total"))

    @property
    def cpu(self) -> float:
        """Seconds of processor time it has used, so that one sees when it is what limits a sender."""
        return float(self._ask("cpu"))

    def check(self, readers: Path, *leavers: Path) -> dict[str, int]:
        """Say how many got no mail, how many more than one, and how many bytes came in; leavers may have got none."""
        return dict(json.loads(self._ask(" ".join(["check", str(readers), *map(str, leavers)]))))

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._guard.forget(self._process)  # type: ignore[arg-type,unused-ignore]

    def _ask(self, words: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{words}\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


class Scene:
    """Everything that stays from round to round."""

    def __init__(self, guard: Guard, *, readers: int, is_month_day: bool = False) -> None:
        self.guard, self.count, self._is_month_day = guard, readers, is_month_day
        self.folder = Path(tempfile.mkdtemp(prefix="newsroom-bench-"))
        guard.remove_at_end(self.folder)
        self.postgres = Postgres(guard, options=[*DURABLE, *COUNTED])
        self.broker_url = start_valkey(guard)
        self.sinks = {kind: Sink(kind, guard) for kind in ("smtp", "http")}
        self.receiver = self.sinks["smtp"]  # of the run that goes on
        self._dates = count(1)
        self._newsletters: dict[int, Any] = {}
        self._load_settings()
        self._make_databases()
        self._make_readers()
        self._write_payload()

    @property
    def readers_file(self) -> Path:
        return self.folder / f"readers-{self.count}"

    def smtp(self) -> dict[str, str]:
        backend = "django.core.mail.backends.smtp.EmailBackend"
        return {"EMAIL_BACKEND": backend, "EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": str(self.sinks["smtp"].port)}

    def mailgun(self) -> dict[str, str]:
        return {
            "EMAIL_BACKEND": "anymail.backends.mailgun.EmailBackend",
            "ANYMAIL_MAILGUN_API_KEY": "a-key-for-the-benchmark",
            "ANYMAIL_MAILGUN_API_URL": f"http://127.0.0.1:{self.sinks['http'].port}/v3",
            "ANYMAIL_MAILGUN_SENDER_DOMAIN": "mg.wochenblitz.example",
        }

    def postmark(self) -> dict[str, str]:
        return {
            "EMAIL_BACKEND": "anymail.backends.postmark.EmailBackend",
            "ANYMAIL_POSTMARK_SERVER_TOKEN": "a-key-for-the-benchmark",
            "ANYMAIL_POSTMARK_API_URL": f"http://127.0.0.1:{self.sinks['http'].port}",
        }

    def environment(self, transport: Mapping[str, str]) -> dict[str, str]:
        """The environment of a sender: the site's settings, its transport, and where to find the digest."""
        return {
            **os.environ,
            **transport,
            "DJANGO_SETTINGS_MODULE": "newsroom.settings",
            "EMAIL_PORT": str(self.sinks["smtp"].port),
            "BENCH_PAYLOAD": str(self.folder / "payload.json"),
            "BENCH_READERS": str(self.readers_file),
            "BENCH_COUNT": str(self.count),
            "BENCH_DATABASE_URL": self._other_url,
        }

    def make_digest(self) -> Any:
        """Compile a digest of a date of its own, that only waits to be started."""
        from subscriptions.models import Subscription

        if self._is_month_day:
            Subscription.objects.filter(newsletter=self.newsletter).update(last_sent_at=None)
        self.tidy()
        return self._compile(self.newsletter)

    def make_probe(self) -> Any:
        """Compile one for the first few readers, so that senders warm up."""
        return self._compile(self._probes)

    def _compile(self, newsletter: Any) -> Any:
        from django.utils import timezone

        from digests.models import DigestSchedule
        from tests.makers import make_digest

        now = timezone.now()
        date = timezone.localdate(now) - timedelta(days=next(self._dates))
        digest = make_digest(newsletter, articles=ARTICLES, date=date, due_at=now + timedelta(hours=1))
        DigestSchedule.objects.filter(newsletter=newsletter).update(state=DigestSchedule.State.STOPPED)
        return digest

    def tidy(self) -> None:
        """Leave no work of the run before to this one."""
        for url in (self.postgres.url, self._other_url):
            with psycopg.connect(url, autocommit=True) as database:
                database.execute("VACUUM ANALYZE")
                database.execute("CHECKPOINT")

    def _load_settings(self) -> None:
        run = {
            "VAR_DIR": str(self.folder / "var"),
            "DATABASE_URL": self.postgres.url,
            "BROKER_URL": self.broker_url,
            "DJANGO_SETTINGS_MODULE": "newsroom.settings",
        }
        os.environ.update(ENVIRONMENT | run)
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        call_command("collectstatic", interactive=False, verbosity=0)

    def _make_databases(self) -> None:
        with psycopg.connect(self.postgres.url, autocommit=True) as database:
            database.execute("CREATE EXTENSION pg_stat_statements")
            database.execute("CREATE DATABASE others")
        self._other_url = urlunsplit(urlsplit(self.postgres.url)._replace(path="/others"))
        self.watcher = psycopg.connect(self.postgres.url, autocommit=True)
        self.watcher.execute("SET pg_stat_statements.track = 'none'")  # looking on is not counted

    def _make_readers(self) -> None:
        from tests.makers import make_newsletter

        self._probes = make_newsletter(name="Probe")
        self.watcher.execute(READERS, [self.count])
        self.watcher.execute(SUBSCRIPTIONS, [self._probes.pk, protocol.WARM_UP])
        self.turn_to(self.count)

    def turn_to(self, count: int) -> None:
        """Have the digests from now on be of the newsletter with so many of the readers, made when first asked for."""
        from tests.makers import make_newsletter

        self.count, self.newsletter = count, self._newsletters.get(count)
        if self.newsletter is None:
            self.newsletter = self._newsletters[count] = make_newsletter()
            self.watcher.execute(SUBSCRIPTIONS, [self.newsletter.pk, count])
            self.write_readers()

    def write_readers(self) -> None:
        """Write down who is to get the next digest: on the way some may have left."""
        with self.readers_file.open("wb") as file, self.watcher.cursor() as cursor:
            copy = cursor.copy(MAILABLE, [self.newsletter.pk])
            with copy as rows:
                file.writelines(rows)

    def _write_payload(self) -> None:
        from digests import rendering
        from digests.models import Digest

        digest: Digest = self.make_digest()
        names = ("unsubscribe_url", "preferences_url", "why_url")
        text, html = digest.text, digest.html
        assert not any(sign in text + html for sign in ("{{", "{%", "{#")), "The digest looks like a template."
        for slot, name in zip(rendering.SLOTS, names, strict=True):
            text, html = text.replace(slot, f"{{{{ {name} }}}}"), html.replace(slot, f"{{{{ {name} }}}}")
        self.digest_bytes = len((text + html).encode())
        payload = {
            "subject": digest.subject,
            "sender": "Wochenblitz <newsletter@wochenblitz.example>",
            "text": text,
            "html": html,
            "headers": {
                "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
                "List-Id": "<der-tag.wochenblitz.example>",
                "Precedence": "bulk",
            },
        }
        (self.folder / "payload.json").write_text(json.dumps(payload))


def read_line(pipe: IO[str] | None) -> str:
    assert pipe is not None
    return pipe.readline().strip()
