"""What the benchmark and a sender of its own say to each other: `ready`, then `go`, then `done`, then the pipe closes.

Only the standard library is used here: senders run in the environment of what they measure, too.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def run(send: Callable[[], object]) -> None:
    print("ready", flush=True)
    sys.stdin.readline()
    send()
    print("done", flush=True)
    sys.stdin.readline()  # stays until what it used has been counted


def payload() -> dict[str, Any]:
    """Return the digest: subject, sender, text and HTML as Django templates, names of the links, headers."""
    return dict(json.loads(Path(os.environ["BENCH_PAYLOAD"]).read_text()))


def readers() -> list[str]:
    return Path(os.environ["BENCH_READERS"]).read_text().split()


def links(address: str) -> dict[str, str]:
    """Return a reader's own links, as long as the site's."""
    token = hashlib.sha256(address.encode()).hexdigest()[:43]
    names = {"unsubscribe_url": "abmelden", "preferences_url": "einstellungen", "why_url": "warum"}
    return {name: f"https://news.wochenblitz.example/newsletter/{path}/{token}/" for name, path in names.items()}
