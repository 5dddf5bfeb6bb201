"""One demo and one browser for all the walks through it; each walk has a browser profile of its own."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

from newsroom.management.guard import Guard
from tests.browser import steps
from tests.browser.demo import Demo, answers
from tests.browser.mailbox import DIGEST_PATIENCE, Mail, Mailbox, is_digest
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


@pytest.fixture(scope="package")
def demo(request: pytest.FixtureRequest, guard: Guard) -> Iterator[Demo]:
    with tempfile.TemporaryDirectory(prefix="newsroom-browser-") as folder:
        demo = Demo(guard=guard, folder=Path(folder))
        try:
            yield demo
            logs = demo.logs()
        finally:
            demo.end()
    assert not answers(demo.site)
    assert "Traceback" not in logs, logs


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="package")
def browser(playwright: Playwright) -> Iterator[Browser]:
    assert Path(CHROMIUM).exists(), f"{CHROMIUM} is missing: install Debian's chromium, or name another in CHROMIUM."
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
    yield browser
    browser.close()


@pytest.fixture
def profiles(browser: Browser, demo: Demo) -> Iterator[Profiles]:
    profiles = Profiles(browser, demo.site)
    yield profiles
    assert not (problems := profiles.close()), "\n".join(problems)


@pytest.fixture
def page(profiles: Profiles) -> Page:
    """A reader's browser as most have it."""
    return profiles.open()


@pytest.fixture
def bare_page(profiles: Profiles) -> Iterator[Page]:
    """A reader's browser that runs no scripts. Readers get no cookies, whatever they do."""
    page = profiles.open(java_script_enabled=False, viewport=PHONE)
    yield page
    assert page.context.cookies() == []


@pytest.fixture
def mail_program(profiles: Profiles) -> Page:
    """A browser of its own for the mailbox, which has buttons and so a cookie."""
    return profiles.open()


@pytest.fixture
def desk(profiles: Profiles, demo: Demo) -> Page:
    """A browser in which someone of the staff has logged in."""
    page = profiles.open()
    page.goto("/admin/")
    page.locator("#id_username").fill(demo.user)
    page.locator("#id_password").fill(demo.password)
    page.locator("#login-form [type=submit]").click()
    expect(page.locator("#user-tools")).to_be_visible()
    return page


@pytest.fixture(scope="package")
def mailbox(demo: Demo) -> Mailbox:
    return Mailbox(demo.site)


@pytest.fixture(scope="package")
def subscriber(browser: Browser, demo: Demo, mailbox: Mailbox) -> str:
    """The address of a reader who has both newsletters."""
    address = "erna.kroeger@lesen.example"
    profiles = Profiles(browser, demo.site)
    page = profiles.open()
    steps.sign_up(page, address, "der-tag", "wochenschau")
    steps.confirm(page, mailbox, address)
    assert not profiles.close()
    return address


@pytest.fixture(scope="package")
def digest_mail(subscriber: str, mailbox: Mailbox) -> Mail:
    """Today's digest as the subscriber got it."""
    return mailbox.wait_for(subscriber, is_digest("der-tag"), patience=DIGEST_PATIENCE)
