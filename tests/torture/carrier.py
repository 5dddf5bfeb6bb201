"""The torture tests' end of a provider's process: start it, tell it what to do wrong, read its log."""

import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from newsroom.management.guard import Guard
from tests.stand_ins import API_KEY
from tests.torture.provider import Faults

ROOT = Path(__file__).parent.parent.parent


class Carrier:
    """A provider's process. `api` says in which words it is spoken to: smtp, postmark, resend or mailgun."""

    def __init__(self, api: str, *, guard: Guard, folder: Path, seed: int = 1, host: str = "127.0.0.1") -> None:
        self.api, self.host, self.folder = api, host, folder / "provider"
        self.folder.mkdir()
        self._entries: dict[str, list[dict[str, Any]]] = {}
        self._digests: list[dict[str, Any]] = []
        self._mailed: Counter[str] = Counter()
        self._read_up_to = 0
        kind = "smtp" if api == "smtp" else "http"
        command = [
            sys.executable,
            "-m",
            "tests.torture.provider",
            kind,
            self.folder,
            f"--seed={seed}",
            f"--host={host}",
        ]
        with (folder / "provider.log").open("ab") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        guard.watch(self.process)
        deadline = time.monotonic() + 20
        while not (self.folder / "port").exists():
            assert self.process.poll() is None and time.monotonic() < deadline, (folder / "provider.log").read_text()
            time.sleep(0.02)
        self.port = int((self.folder / "port").read_text())

    def environment(self) -> dict[str, str]:
        """Return the environment that points processes of the site at this provider."""
        url = f"http://{self.host}:{self.port}"
        backend = {
            "EMAIL_BACKEND": f"anymail.backends.{self.api}.EmailBackend",
            "ANYMAIL_REQUESTS_TIMEOUT": "1",
            # Without one that looks like one, the commands' checks refuse to start.
            "ANYMAIL_WEBHOOK_SECRET": "provider0of0tests:0123456789abcdef0123456789abcdef",
            "ANYMAIL_MAILGUN_WEBHOOK_SIGNING_KEY": "secret",
        }
        match self.api:
            case "postmark":
                return backend | {"ANYMAIL_POSTMARK_SERVER_TOKEN": API_KEY, "ANYMAIL_POSTMARK_API_URL": url}
            case "resend":
                return backend | {"ANYMAIL_RESEND_API_KEY": API_KEY, "ANYMAIL_RESEND_API_URL": url}
            case "mailgun":
                names = {"API_KEY": API_KEY, "API_URL": f"{url}/v3", "SENDER_DOMAIN": "mg.wochenblitz.example"}
                return backend | {f"ANYMAIL_MAILGUN_{name}": value for name, value in names.items()}
        return {
            "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
            "EMAIL_HOST": self.host,
            "EMAIL_PORT": str(self.port),
            "EMAIL_TIMEOUT": "1",
        }

    def do_wrong(self, **faults: Any) -> None:
        """Replace all that the provider does wrong by this; nothing means that it does well."""
        new = self.folder / "faults.new"
        new.write_text(json.dumps(asdict(Faults(**faults))))
        new.rename(self.folder / "faults.json")

    def _read_on(self) -> None:
        path = self.folder / "log"
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read_up_to)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read_up_to += len(whole)
        for entry in map(json.loads, whole.splitlines()):
            self._entries.setdefault(entry["what"], []).append(entry)
            if entry["what"] == "taken" and entry["digest"]:
                self._digests.append(entry)
                self._mailed[entry["to"]] += 1

    def entries(self, what: str) -> list[dict[str, Any]]:
        """Return what of a kind has happened so far, in order."""
        self._read_on()
        return self._entries.get(what, [])[:]

    @property
    def digests(self) -> list[dict[str, Any]]:
        """Return the copies of digests that were taken."""
        self._read_on()
        return self._digests[:]

    @property
    def mailed(self) -> Counter[str]:
        """Return how many copies of digests were taken for each address."""
        self._read_on()
        return self._mailed.copy()

    def links_for(self, address: str) -> list[str]:
        """Return the links in the last mail to an address that was no digest."""
        mails = [entry for entry in self.entries("taken") if entry["to"] == address and not entry["digest"]]
        return mails[-1]["links"] if mails else []

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
