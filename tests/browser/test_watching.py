"""The tests of this folder promise to notice what must not happen; here it happens."""

import http.server
import threading
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.accessibility import assert_accessible
from tests.browser.demo import Demo
from tests.browser.profiles import Profiles


@pytest.fixture
def watched(browser: Browser, demo: Demo) -> Iterator[Profiles]:
    profiles = Profiles(browser, demo.site)
    yield profiles
    profiles.close()


@pytest.fixture
def other_site() -> Iterator[str]:
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def test_a_request_to_another_host_is_noticed(watched: Profiles, other_site: str) -> None:
    page = watched.open()
    with page.expect_request(other_site):
        page.set_content(f'<img src="{other_site}">')
    assert f"Request to another host: {other_site}" in watched.close()


def test_a_violation_of_the_content_security_policy_is_noticed(watched: Profiles) -> None:
    page = watched.open()
    page.goto("/")
    with page.expect_console_message():
        page.evaluate("document.body.append(Object.assign(document.createElement('script'), {textContent: '1'}))")
    assert any("Content Security Policy" in problem for problem in watched.close())


def test_what_some_cannot_read_is_noticed(watched: Profiles) -> None:
    page = watched.open()
    page.set_content('<html lang="de"><title>Blass</title><main><h1 style="color: #ccc">Blass</h1></main>')
    with pytest.raises(AssertionError, match="color-contrast"):
        assert_accessible(page)


def test_what_is_too_wide_for_a_phone_is_noticed(watched: Profiles) -> None:
    page = watched.open()
    page.set_content('<html lang="de"><title>Breit</title><main><h1 style="width: 500px">Breit</h1></main>')
    with pytest.raises(AssertionError, match="px wide"):
        assert_accessible(page)
