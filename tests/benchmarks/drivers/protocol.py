"""What the benchmark and a sender of its own say to each other: `ready`, then `go`, then `done`, then the pipe closes.

Before it is ready a sender has sent to the first few readers, so that what it does at first use is not measured.
Only the standard library is used here: senders run in the environment of what they measure, too.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_UP = 400  # readers


def run(send: Callable[[int], object]) -> None:
    """Let it send to the first few readers, and then, when told to, to as many as it is to."""
    send(WARM_UP)
    print("ready", flush=True)
    sys.stdin.readline()
    send(count())
    print("done", flush=True)
    sys.stdin.readline()  # stays until what it used has been counted


def payload() -> dict[str, Any]:
    """Return the digest: subject, sender, text and HTML as Django templates, names of the links, headers."""
    return dict(json.loads(Path(os.environ["BENCH_PAYLOAD"]).read_text()))


def count() -> int:
    return int(os.environ["BENCH_COUNT"])


def readers() -> list[str]:
    return Path(os.environ["BENCH_READERS"]).read_text().split()


def links(address: str) -> dict[str, str]:
    """Return a reader's own links, as long as the site's."""
    token = hashlib.sha256(address.encode()).hexdigest()[:43]
    names = {"unsubscribe_url": "abmelden", "preferences_url": "einstellungen", "why_url": "warum"}
    return {name: f"https://news.wochenblitz.example/newsletter/{path}/{token}/" for name, path in names.items()}
