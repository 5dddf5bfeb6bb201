"""A reader at the site's own pages, by HTTP alone: signs up, leaves, erases."""

import re
import time
import urllib.parse
import urllib.request
from typing import Any

from tests.processes import Processes
from tests.torture.carrier import Carrier


def sign_up(url: str, address: str, newsletter: Any) -> None:
    form = _hidden_fields(_get(f"{url}/newsletter/")) | {"email": address, "newsletters": newsletter.slug}
    post(f"{url}/newsletter/", form)


def open_rights_page(site: Processes, url: str, provider: Carrier, addresses: list[str]) -> dict[str, str]:
    """Ask for everyone's link, wait for the mails, press the button in each; return the tokens of the opened pages."""
    form = _hidden_fields(_get(f"{url}/meine-daten/"))
    for address in addresses:
        post(f"{url}/meine-daten/", form | {"email": address})
    site.wait_until(lambda: all(_rights_link(provider, address) for address in addresses), timeout=120)
    pages = {address: post(_rights_link(provider, address), {}) for address in addresses}
    return {address: _hidden_fields(page)["token"] for address, page in pages.items()}


def erase(url: str, token: str) -> float:
    """Press the button that erases everything; return when the answer was there."""
    post(f"{url}/meine-daten/loeschen/", {"token": token, "sure": "yes"})
    return time.time()


def leave(url: str, token: str) -> float:
    """Leave as a mail program does, by one click (RFC 8058); return when the answer was there."""
    post(f"{url}/newsletter/abmelden/{token}/", {"List-Unsubscribe": "One-Click"})
    return time.time()


def post(url: str, fields: dict[str, str]) -> str:
    with urllib.request.urlopen(url, data=urllib.parse.urlencode(fields).encode(), timeout=60) as answer:
        assert answer.status == 200
        return str(answer.read().decode())


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())


def _hidden_fields(page: str) -> dict[str, str]:
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))


def _rights_link(provider: Carrier, address: str) -> str:
    return next((link for link in provider.links_for(address) if "/meine-daten/" in link), "")
