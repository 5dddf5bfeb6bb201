"""People at the site's pages while a digest goes out: some sign up, some leave by one click, a few each second.

    python -m tests.benchmarks.visitors URL NEWSLETTER TOKENS LEAVERS

Each line of TOKENS is a reader's address and the token to leave with; who left is added to LEAVERS. It says `ready`,
begins at a line, and when the pipe closes prints how long the answers took, counted from when each was due: a server
that keeps one waiting must not be asked less for that.
"""

import json
import re
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from pathlib import Path
from statistics import quantiles
from threading import Event, Thread

SIGN_UPS_PER_SECOND = 3.0
LEAVING_PER_SECOND = 2.0


def main(url: str, newsletter: str, tokens: str, leavers: str) -> None:
    with urllib.request.urlopen(f"{url}/newsletter/", timeout=60) as answer:
        form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', answer.read().decode()))
    numbers, leaving = count(time.time_ns()), iter(Path(tokens).read_text().split("\n"))

    def sign_up() -> None:
        fields = form | {"email": f"neu{next(numbers)}@besuch.example", "newsletters": newsletter}
        _post(f"{url}/newsletter/", fields)

    def leave() -> None:
        address, _, token = next(leaving, "").partition(" ")
        if token:
            with open(leavers, "a") as file:
                file.write(f"{address}\n")
            _post(f"{url}/newsletter/abmelden/{token}/", {"List-Unsubscribe": "One-Click"})

    print("ready", flush=True)
    sys.stdin.readline()
    is_over = Event()
    found: dict[str, list[Future[float]]] = {"sign_up": [], "leave": []}
    with ThreadPoolExecutor(16) as pool:
        acts = ((sign_up, SIGN_UPS_PER_SECOND, found["sign_up"]), (leave, LEAVING_PER_SECOND, found["leave"]))
        threads = [Thread(target=_keep_asking, args=(pool, *act, is_over)) for act in acts]
        for thread in threads:
            thread.start()
        sys.stdin.readline()
        is_over.set()
        for thread in threads:
            thread.join()
    print(json.dumps({name: _in_short([each.result() for each in futures]) for name, futures in found.items()}))


def _keep_asking(
    pool: ThreadPoolExecutor, act: Callable[[], None], rate: float, found: list[Future[float]], is_over: Event
) -> None:
    due_at = time.monotonic()
    while not is_over.wait(max(0.0, due_at - time.monotonic())):
        found.append(pool.submit(_timed, act, due_at))
        due_at += 1 / rate


def _timed(act: Callable[[], None], due_at: float) -> float:
    act()
    return time.monotonic() - due_at


def _in_short(seconds: list[float]) -> dict[str, float]:
    """Return how many there were, and in milliseconds the median, the 99th percentile and the longest."""
    if not seconds:
        return {"n": 0, "p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0}
    cuts = quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else seconds * 99
    return {
        "n": len(seconds),
        "p50_ms": round(cuts[49] * 1000, 1),
        "p99_ms": round(cuts[98] * 1000, 1),
        "max_ms": round(max(seconds) * 1000, 1),
    }


def _post(url: str, fields: dict[str, str]) -> None:
    with urllib.request.urlopen(url, data=urllib.parse.urlencode(fields).encode(), timeout=60) as answer:
        assert answer.status == 200


if __name__ == "__main__":
    main(*sys.argv[1:])
