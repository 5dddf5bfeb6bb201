"""Staff watch a digest being sent, stop it and let it go on, on a page that follows by itself."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.browser.accessibility import assert_accessible
from tests.browser.demo import Demo
from tests.browser.test_staff import SCHEDULES, SENDING_PATIENCE, add_newsletter, make_it_now, send_now

READERS = 90
A_LITTLE = 4000  # milliseconds: more than the page's own pause


@pytest.fixture
def slow_provider(desk: Page) -> Iterator[None]:
    """A provider that takes a mail in a second."""
    set_pace(desk, "1")
    yield
    set_pace(desk, "")


def set_pace(page: Page, rate: str) -> None:
    page.goto("/admin/digests/provider/")
    page.locator("#result_list tbody th a").first.click()
    page.locator("#id_most_per_second").fill(rate)
    page.locator("[name=_save]").click()
    expect(page.locator(".messagelist .success")).to_be_visible()


def done(page: Page) -> int:
    return int(page.locator(".desk-bar").get_attribute("value") or 0)


@pytest.mark.usefixtures("digest_mail", "slow_provider")
def test_staff_watch_a_digest_pause_it_and_let_it_go_on(desk: Page, demo: Demo) -> None:
    add_newsletter(desk, name="Am Mittag", slug="am-mittag")
    demo.add_readers("Am Mittag", READERS)
    desk.goto(f"{SCHEDULES}add/")
    desk.locator("#id_newsletter").select_option(label="Am Mittag")
    steps.plan_for_today(desk)
    desk.locator("#result_list a", has_text="Am Mittag").click()
    make_it_now(desk)
    assert send_now(desk) == READERS

    watched = desk.url
    desk.evaluate("window.isTheSamePage = true")
    expect(desk.locator(".plot svg rect").first).to_be_visible(timeout=SENDING_PATIENCE)
    expect(desk.locator("#progress-said")).not_to_be_empty()
    desk.locator("details summary").first.click()
    expect(desk.locator(".desk-bar")).not_to_have_attribute("value", str(done(desk)), timeout=SENDING_PATIENCE)
    assert desk.evaluate("window.isTheSamePage") is True
    expect(desk.locator("details[open] .desk-table")).to_be_visible()
    expect(desk.locator("#progress-lost")).to_be_hidden()
    assert_accessible(desk, part="#content")

    decide(desk, "pause", "Ein Fehler im Aufmacher")
    expect(desk.locator("[data-state=paused]")).to_be_visible()
    desk.wait_for_timeout(A_LITTLE)  # the letters on their way arrive
    stopped = done(desk)
    desk.wait_for_timeout(A_LITTLE)
    assert done(desk) == stopped < READERS

    set_pace(desk, "")
    desk.goto(watched)
    desk.locator("a[href$='/act/resume/']").click()
    desk.locator(".desk form .desk-main").click()
    expect(desk.locator("[data-state=finished]")).to_be_visible(timeout=2 * SENDING_PATIENCE)
    assert done(desk) == READERS
    expect(desk.get_by_role("cell").or_(desk.get_by_role("rowheader")).get_by_text("viele.example")).to_be_visible()
    expect(desk.locator(".desk-history")).to_contain_text("Ein Fehler im Aufmacher")
    expect(desk.locator("#progress[data-live]")).to_have_count(0)
    assert_accessible(desk, part="#content")


def decide(page: Page, act: str, reason: str) -> None:
    page.locator(f"a[href$='/act/{act}/']").click()
    page.locator("#id_reason").fill(reason)
    page.locator(".desk form .desk-button").first.click()
