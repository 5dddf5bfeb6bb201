"""Browser profiles: each fresh, German, and watched."""

import os
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect

from tests.browser.watching import Watch

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",  # containers run as root, and only our own pages are opened
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE = 15_000  # milliseconds; a busy machine may take that long to show a page
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}

expect.set_options(timeout=PATIENCE)


class Profiles:
    """Opens browser profiles and remembers what happened in them."""

    def __init__(self, browser: Browser, site: str) -> None:
        self._browser = browser
        self._site = site
        self._open: list[tuple[BrowserContext, Watch]] = []

    def open(self, **options: Any) -> Page:
        """Return the first page of a fresh profile: no cookies, no history, German."""
        defaults = {"base_url": self._site, "locale": "de-DE", "timezone_id": "Europe/Berlin", "viewport": DESKTOP}
        context = self._browser.new_context(**defaults | options)
        context.set_default_timeout(PATIENCE)
        self._open.append((context, Watch(context, self._site)))
        return context.new_page()

    def close(self) -> list[str]:
        """Close them all and return what must not have happened."""
        for context, _watch in self._open:
            context.close()
        problems = [problem for _context, watch in self._open for problem in watch.problems]
        self._open.clear()
        return problems


def launch(playwright: Playwright) -> Browser:
    assert Path(CHROMIUM).exists(), f"{CHROMIUM} is missing: install Debian's chromium, or name another in CHROMIUM."
    return playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)


def log_in(page: Page, *, user: str, password: str) -> None:
    """Log in as staff."""
    page.goto("/admin/")
    page.locator("#id_username").fill(user)
    page.locator("#id_password").fill(password)
    page.locator("#login-form [type=submit]").click()
    expect(page.locator("#user-tools")).to_be_visible()
