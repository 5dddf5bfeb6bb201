"""Staff's path: plan a digest, look at it, try it out, change it, send it; or call it off."""

import re

from playwright.sync_api import FrameLocator, Locator, Page, expect

from tests.browser import steps
from tests.browser.mailbox import SERVICE_PATIENCE, Mail, Mailbox, is_digest

SCHEDULES = "/admin/digests/digestschedule/"
STAFF_ADDRESS = "redaktion@wochenblitz.example"
SENDING_PATIENCE = 60_000  # milliseconds


def test_staff_plan_a_digest_try_it_out_and_send_it(desk: Page, mailbox: Mailbox, subscriber: str) -> None:
    plan_todays_digest(desk, "Wochenschau")
    make_it_now(desk)
    digest_page = desk.url
    first, second, *_others, last = headlines(desk)

    see_the_previews(desk, headline=first)
    try_it_out(desk, mailbox, digest_page=digest_page)
    move_up(desk, second)
    take_out(desk, last)
    assert headlines(desk)[:2] == [second, first]
    assert last not in headlines(desk)

    readers = send_now(desk)
    expect(desk.locator("[data-state=finished]")).to_be_visible(timeout=SENDING_PATIENCE)
    assert numbers(desk)["expected"] == numbers(desk)["accepted"] == readers
    mail = mailbox.wait_for(subscriber, is_digest("wochenschau"))
    assert second in mail.subject
    assert last not in mail.text


def test_staff_set_up_a_newsletter_and_cancel_its_digest(desk: Page) -> None:
    add_newsletter(desk, name="Am Abend", slug="am-abend")
    desk.goto(f"{SCHEDULES}add/")
    desk.locator("#id_newsletter").select_option(label="Am Abend")
    steps.plan_for_today(desk)
    desk.locator("#result_list a", has_text="Am Abend").click()
    make_it_now(desk)

    desk.locator("a[href$='/act/cancel/']").click()
    desk.locator("#id_reason").fill("Heute erscheint eine Sonderausgabe.")
    desk.locator(".desk form .desk-grave").click()

    expect(desk.locator("[data-state=cancelled]")).to_be_visible()
    expect(desk.locator(".desk-history")).to_contain_text("Heute erscheint eine Sonderausgabe.")
    expect(desk.locator("a[href*='/act/']")).to_have_count(0)


def test_nobody_else_gets_to_the_schedules(page: Page) -> None:
    page.goto(SCHEDULES)
    expect(page).to_have_url(re.compile(r"/admin/login/\?next="))


def plan_todays_digest(page: Page, newsletter: str) -> None:
    page.goto(SCHEDULES)
    page.locator("#result_list tbody a", has_text=newsletter).click()
    steps.plan_for_today(page)
    row = page.locator("#result_list tr", has_text=newsletter)
    expect(row).to_contain_text("23:59")
    row.locator("a").first.click()


def make_it_now(page: Page) -> None:
    page.locator("form[action$='/make/'] button").click()
    expect(page.locator("[data-state=compiled]")).to_be_visible()


def headlines(page: Page) -> list[str]:
    return page.locator("#articles h3").all_inner_texts()


def see_the_previews(page: Page, *, headline: str) -> None:
    page.locator("a[href$='/preview/']").click()
    phone, screen = page.frame_locator(".desk-phone >> nth=0"), page.frame_locator(".desk-screen")
    expect(lead(phone)).to_have_text(headline)
    expect(lead(screen)).to_have_text(headline)
    expect(lead(page.frame_locator(".desk-dark"))).to_have_text(headline)
    assert page.locator(".desk-phone").first.evaluate("frame => frame.clientWidth") == 390
    assert page.locator(".desk-screen").evaluate("frame => frame.clientWidth") == 720
    expect(page.locator(".desk-text")).to_contain_text(headline)


def lead(mail: FrameLocator) -> Locator:
    return mail.locator("h2").first


def try_it_out(page: Page, mailbox: Mailbox, *, digest_page: str) -> None:
    page.locator("form[action$='/test/'] button").click()
    expect(page).to_have_url(digest_page)
    expect(page.locator(".messagelist .success")).to_contain_text(STAFF_ADDRESS)
    mail = mailbox.wait_for(STAFF_ADDRESS, patience=SERVICE_PATIENCE)
    assert mail.subject.startswith("[TEST]")
    assert "TEST" in mail.text
    assert mail.message["List-Unsubscribe"] is None
    assert not leads_to_a_reader(mail)


def leads_to_a_reader(mail: Mail) -> bool:
    return steps.UNSUBSCRIBE in mail.html + mail.text or steps.PREFERENCES in mail.html + mail.text


def move_up(page: Page, headline: str) -> None:
    entry(page, headline).locator("form[action$='/up/'] button").click()
    expect(page.locator("#articles h3").first).to_have_text(headline)


def take_out(page: Page, headline: str) -> None:
    entry(page, headline).locator("form[action$='/remove/'] button").click()
    expect(entry(page, headline)).to_have_count(0)


def entry(page: Page, headline: str) -> Locator:
    return page.locator("#articles .desk-entry").filter(has=page.get_by_role("heading", name=headline, exact=True))


def send_now(page: Page) -> int:
    """Send the digest; return how many readers the page said would get it."""
    page.locator("a[href$='/act/send-now/']").click()
    readers = int(page.locator(".desk-readers b").inner_text())
    assert readers >= 1
    page.locator(".desk form .desk-main").click()
    expect(page.locator(".messagelist .success")).to_be_visible()
    return readers


def numbers(page: Page) -> dict[str, int]:
    values = [int(value) for value in page.locator(".desk-numbers dd").all_inner_texts()]
    return {"expected": values[0], "accepted": values[3]}


def add_newsletter(page: Page, *, name: str, slug: str) -> None:
    page.goto("/admin/subscriptions/newsletter/add/")
    page.locator("#id_name").fill(name)
    page.locator("#id_slug").fill(slug)
    page.locator("#id_description").fill("Was der Tag gebracht hat, um sieben.")
    page.locator("#id_frequency").select_option("daily")
    page.locator("[name=_save]").click()
    expect(page.locator(".messagelist .success")).to_be_visible()
