"""One demo and one browser for all the walks through it; each walk has a browser profile of its own."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from newsroom.management.guard import Guard
from tests.browser import steps
from tests.browser.demo import Demo, answers
from tests.browser.mailbox import DIGEST_PATIENCE, Mail, Mailbox, is_digest
from tests.browser.profiles import PHONE, Profiles, launch, log_in


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
    browser = launch(playwright)
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
    log_in(page, user=demo.user, password=demo.password)
    return page


@pytest.fixture(scope="package")
def mailbox(demo: Demo) -> Mailbox:
    return Mailbox(demo.site)


@pytest.fixture(scope="package", autouse=True)
def subscriber(browser: Browser, demo: Demo, mailbox: Mailbox) -> str:
    """The address of a reader who has both newsletters, from the start, so that no test waits long for the digest."""
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
