"""A reader's path, walked by someone who allows neither scripts nor cookies."""

import json
import re
from typing import Any
from zipfile import ZipFile

from playwright.sync_api import APIResponse, Page, expect

from tests.browser import steps
from tests.browser.mailbox import DIGEST_PATIENCE, Mail, Mailbox, is_digest

ADDRESS = "theo.lesemann@lesen.example"
NEWSLETTER = "der-tag"


def test_from_the_front_page_to_the_digest_and_out_again(bare_page: Page, mail_program: Page, mailbox: Mailbox) -> None:
    open_an_article(bare_page)
    make_mistakes_and_mend_them(bare_page)
    confirm_with_the_button(bare_page, mail_program, mailbox)

    digest = mailbox.wait_for(ADDRESS, is_digest(NEWSLETTER), patience=DIGEST_PATIENCE)
    read_the_digest(digest, mail_program)
    follow_its_links(digest, bare_page)
    unsubscribe(digest, bare_page)

    open_my_data(bare_page, mailbox)
    data = take_data_along(bare_page)
    assert_all_is_told(data)
    have_everything_deleted(bare_page, digest)

    assert len([mail for mail in mailbox.mails(ADDRESS) if is_digest(NEWSLETTER)(mail)]) == 1


def open_an_article(page: Page) -> None:
    page.goto("/")
    story = page.locator(".columns .story-headline a").first
    headline = story.inner_text()
    story.click()
    expect(page).to_have_url(re.compile(r"/artikel/[\w-]+/$"))
    expect(page.locator("h1")).to_have_text(headline)


def make_mistakes_and_mend_them(page: Page) -> None:
    steps.fill_in(page, "theo.lesemann@lesen")
    steps.send(page)
    expect(page.locator(".error-summary")).to_be_focused()
    expect(page.locator("#email-error")).to_be_visible()
    expect(page.locator("#newsletters-error")).to_be_visible()
    expect(page.locator("#email")).to_have_value("theo.lesemann@lesen")

    page.locator(".error-summary a[href='#email']").click()
    expect(page.locator("#email")).to_be_focused()
    steps.fill_in(page, ADDRESS, NEWSLETTER)
    steps.send(page)
    expect(page).to_have_url(re.compile("/newsletter/fast-geschafft/$"))


def confirm_with_the_button(page: Page, mail_program: Page, mailbox: Mailbox) -> None:
    mail = mailbox.wait_for(ADDRESS)
    link = link_shown(mail, mail_program, path=steps.CONFIRMATION)
    for _scanner in range(2):  # mail servers open links to check them
        page.goto(link)
        expect(page.locator("main form")).to_have_count(1)
    steps.send(page)
    expect(page).to_have_url(re.compile("/newsletter/bestaetigt/$"))
    page.goto(link)
    expect(page.locator("main form")).to_have_count(0)


def link_shown(mail: Mail, mail_program: Page, *, path: str) -> str:
    """Look the mail up in the mailbox's list, open it, and return where its link leads."""
    mail_program.goto("/postfach/")
    mail_program.locator(f".sent a[href$='/sent/{mail.id}/']").click()
    expect(mail_program.locator("iframe")).to_be_visible()
    link = mail_program.frame_locator("iframe").locator(f"a[href*='{path}']")
    expect(link).to_be_visible()
    assert link.get_attribute("href") == mail.link(path)
    return mail.link(path)


def read_the_digest(digest: Mail, mail_program: Page) -> None:
    link = digest.link(steps.UNSUBSCRIBE)
    assert str(digest.message["List-Unsubscribe"]).strip() == f"<{link}>"  # a long header is folded
    assert digest.message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"

    mail_program.goto(f"{digest.page}html/")
    headlines = mail_program.locator("h2 a, h3 a")
    assert headlines.first.inner_text() in digest.subject
    for headline in headlines.all_inner_texts():
        assert headline in digest.text
    mail_program.wait_for_function("[...document.images].every(image => image.complete)")
    assert mail_program.evaluate("[...document.images].filter(image => !image.naturalWidth).length") == 0


def follow_its_links(digest: Mail, page: Page) -> None:
    for url in digest.links():
        assert page.request.get(url).ok, url
    assert digest.pictures()
    for url in digest.pictures():
        assert is_picture(page.request.get(url)), url


def is_picture(response: APIResponse) -> bool:
    return response.ok and response.headers["content-type"].startswith("image/")


def unsubscribe(digest: Mail, page: Page) -> None:
    page.goto(digest.link(steps.UNSUBSCRIBE))
    page.locator("main button").click()
    expect(page.locator("[role=status]")).to_be_visible()

    page.goto(digest.link(steps.PREFERENCES))
    offers = page.locator("button[name=act]")
    assert {offer.get_attribute("value") for offer in offers.all()} == {"add"}


def open_my_data(page: Page, mailbox: Mailbox) -> None:
    mail = steps.ask_for_data(page, mailbox, ADDRESS)
    page.goto(mail.link(steps.RIGHTS))
    steps.send(page)
    expect(page.locator("main")).to_contain_text(ADDRESS)


def take_data_along(page: Page) -> dict[str, Any]:
    with page.expect_download() as download:
        page.locator("form[action$='/export/'] button").click()
    assert download.value.suggested_filename.endswith(".zip")
    with ZipFile(download.value.path()) as archive:
        data: dict[str, Any] = json.loads(archive.read("daten.json"))
    return data


def assert_all_is_told(export: dict[str, Any]) -> None:
    assert export["address"] == ADDRESS
    (delivery,) = export["data"]["deliveries"]
    assert delivery["outcome"] == "accepted"
    told = json.dumps(export["data"]["consent_records"])
    for act in ("requested", "confirmed", "withdrawn"):
        assert act in told


def have_everything_deleted(page: Page, digest: Mail) -> None:
    page.locator("form[action$='/loeschen/'] button").click()
    page.locator("button[name=sure]").click()
    expect(page.locator("[role=status]")).to_be_visible()

    assert page.request.get(digest.link(steps.PREFERENCES)).status == 404
    page.goto(digest.link(steps.UNSUBSCRIBE))  # says that there is nothing to leave
    expect(page.locator("main form")).to_have_count(0)
