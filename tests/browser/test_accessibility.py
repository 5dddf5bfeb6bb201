"""Everyone can read every page and use every form, with a keyboard alone, enlarged, in the dark, on a phone."""

import http.client
import re
from zipfile import ZipFile

import pytest
from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.browser.accessibility import NOT_FOR_MAILS, assert_accessible
from tests.browser.demo import Demo
from tests.browser.mailbox import Mail, Mailbox, holds

FORGED = "a" * 43
ANOTHER_NETWORK = "127.1.0.1"  # a loopback address, too, but none of the other tests'
REQUESTS_PER_NETWORK = 30


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/ressort/politik/",
        "/newsletter/",
        "/meine-daten/",
        "/datenschutz/",
        "/impressum/",
        "/gibt-es-nicht/",
        f"/newsletter/bestaetigen/{FORGED}/",
        f"/newsletter/abmelden/{FORGED}/",
        f"/newsletter/einstellungen/{FORGED}/",
        "/newsletter/warum/",
        f"/newsletter/warum/{FORGED}/",
        f"/meine-daten/{FORGED}/",
        f"/meine-daten/adresse/{FORGED}/",
        "/meine-daten/adresse/geaendert/",
    ],
)
def test_everyone_can_read_page(page: Page, path: str) -> None:
    page.goto(path)
    assert_accessible(page)


def test_everyone_can_read_an_article(page: Page) -> None:
    page.goto("/")
    page.locator(".story-headline a").first.click()
    expect(page.locator("article.article")).to_be_visible()
    assert_accessible(page)


def test_everyone_can_sign_up(page: Page, mailbox: Mailbox) -> None:
    page.goto("/newsletter/")
    steps.fill_in(page, "niemand@")
    steps.send(page)
    expect(page.locator(".error-summary")).to_be_focused()
    assert_accessible(page)

    steps.fill_in(page, "anna.blick@lesen.example", "der-tag")
    steps.send(page)
    expect(page).to_have_url(re.compile("/newsletter/fast-geschafft/$"))
    assert_accessible(page)

    link = mailbox.wait_for("anna.blick@lesen.example").link(steps.CONFIRMATION)
    page.goto(link)
    assert_accessible(page)
    steps.send(page)
    expect(page).to_have_url(re.compile("/newsletter/bestaetigt/$"))
    assert_accessible(page)
    page.goto(link)  # once more
    assert_accessible(page)


def test_who_took_too_long_can_read_what_to_do(page: Page, demo: Demo, mailbox: Mailbox) -> None:
    page.goto("/newsletter/")
    steps.fill_in(page, "spaet@lesen.example", "der-tag")
    page.locator("[name=stamp]").evaluate("stamp => stamp.value = ''")
    steps.send(page)
    expect(page.locator(".notice")).to_be_visible()
    assert_accessible(page)

    steps.send(page)
    link = mailbox.wait_for("spaet@lesen.example").link(steps.CONFIRMATION)
    demo.let_sign_ups_expire("spaet@lesen.example")
    answer = page.goto(link)
    assert answer and answer.status == 410
    assert_accessible(page)


def test_a_form_sent_from_another_site_is_refused_in_readable_words(page: Page, demo: Demo) -> None:
    page.set_content(f'<form method="post" action="{demo.site}/newsletter/"><button>Gewinnspiel</button></form>')
    page.locator("button").click()
    expect(page.locator("h1")).to_be_visible()
    assert_accessible(page)


def test_who_asks_too_often_can_read_when_to_come_back(page: Page, demo: Demo) -> None:
    answer = ask_too_often(demo.site)
    page.route("**/zu-oft/", lambda route: route.fulfill(status=429, body=answer, content_type="text/html"))
    page.goto("/zu-oft/")
    expect(page.locator("h1")).to_be_visible()
    assert_accessible(page)


def test_everyone_can_use_the_data_pages(page: Page, mailbox: Mailbox) -> None:
    address = "vera.weg@lesen.example"
    steps.sign_up(page, address, "wochenschau")
    steps.confirm(page, mailbox, address)
    mail = steps.ask_for_data(page, mailbox, address)
    assert_accessible(page)
    page.goto(mail.link(steps.RIGHTS))
    assert_accessible(page)
    steps.send(page)
    assert_accessible(page)
    for place in page.locator("details.held summary").all():
        place.focus()
        page.keyboard.press("Enter")
    expect(page.locator("details.held[open] blockquote").first).to_be_visible()
    assert_accessible(page)
    page.locator("form[action$='/loeschen/'] button").click()
    expect(page.locator("button[name=sure]")).to_be_visible()
    assert_accessible(page)
    page.locator("button[name=sure]").click()
    expect(page.locator("[role=status]")).to_be_visible()
    assert_accessible(page)


def test_everyone_can_read_the_export(page: Page, mailbox: Mailbox) -> None:
    address = "edda.export@lesen.example"
    steps.sign_up(page, address, "wochenschau")
    steps.confirm(page, mailbox, address)
    page.goto(steps.ask_for_data(page, mailbox, address).link(steps.RIGHTS))
    steps.send(page)
    with page.expect_download() as download:
        page.locator("form[action$='/export/'] button").click()
    assert re.fullmatch(r"meine-daten-[\d-]{10}\.zip", download.value.suggested_filename)
    with ZipFile(download.value.path()) as archive:
        text = archive.read("lesen.html").decode()

    page.goto("about:blank")  # the file is opened alone, under no policy but its own
    page.set_content(text)
    expect(page.locator("h1")).to_be_visible()
    assert address in page.content()
    assert_accessible(page)


def test_everyone_can_read_why_a_mail_came(page: Page, mailbox: Mailbox, digest_mail: Mail) -> None:
    page.goto(digest_mail.link(steps.WHY))
    expect(page.locator("figure.wording").first).to_be_visible()
    assert digest_mail.to not in page.content()
    assert_accessible(page)
    steps.sign_up(page, "wolf.warum@lesen.example", "der-tag")
    page.goto(mailbox.wait_for("wolf.warum@lesen.example").link(steps.WHY))
    assert_accessible(page)


def test_everyone_can_change_the_address(page: Page, mailbox: Mailbox) -> None:
    address, new = "alma.umzug@lesen.example", "alma.neu@lesen.example"
    steps.sign_up(page, address, "wochenschau")
    steps.confirm(page, mailbox, address)
    page.goto(steps.ask_for_data(page, mailbox, address).link(steps.RIGHTS))
    steps.send(page)
    page.locator("#new-address").fill("alma@")
    page.locator("#new-address").press("Enter")
    expect(page.locator(".error-summary")).to_be_focused()
    assert_accessible(page)

    page.locator("#new-address").fill(new)
    page.locator("#new-address").press("Enter")
    expect(page.locator(".notice-good")).to_be_visible()
    assert_accessible(page)

    link = mailbox.wait_for(new).link(steps.NEW_ADDRESS)
    page.goto(link)
    assert_accessible(page)
    steps.send(page)
    expect(page).to_have_url(re.compile("/meine-daten/adresse/geaendert/$"))
    assert_accessible(page)
    page.goto(link)  # once more
    assert_accessible(page)


def test_everyone_sees_what_is_wrong_with_the_address_on_the_data_page(page: Page) -> None:
    page.goto("/meine-daten/")
    page.locator("#email").fill("niemand")
    steps.send(page)
    expect(page.locator("#email-error")).to_be_visible()
    assert_accessible(page)


def test_a_keyboard_is_enough_for_signing_up(page: Page, mailbox: Mailbox) -> None:
    page.goto("/newsletter/")
    page.keyboard.press("Tab")
    expect(page.locator(".skip-link")).to_be_focused()
    page.keyboard.press("Enter")
    press_tab_to(page, "#newsletter-der-tag")
    page.keyboard.press("Space")
    press_tab_to(page, "#newsletter-wochenschau")
    press_tab_to(page, "#email")
    page.keyboard.type("tastatur@lesen.example")
    page.wait_for_timeout(steps.READING_TIME)
    press_tab_to(page, "main form button")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/newsletter/fast-geschafft/$"))

    page.goto(mailbox.wait_for("tastatur@lesen.example").link(steps.CONFIRMATION))
    page.locator("#inhalt").focus()
    press_tab_to(page, "main form button")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/newsletter/bestaetigt/$"))


def test_everyone_can_read_the_service_mails(page: Page, mailbox: Mailbox, subscriber: str) -> None:
    read_mail(page, mailbox.wait_for(subscriber, holds(steps.CONFIRMATION)))
    assert_accessible(page, without=NOT_FOR_MAILS)


def test_everyone_can_leave_and_come_back(page: Page, digest_mail: Mail) -> None:
    page.goto(digest_mail.link(steps.UNSUBSCRIBE))
    assert_accessible(page)
    page.locator("button[value=this]").click()
    expect(page.locator("[role=status]")).to_be_visible()
    assert_accessible(page)

    page.goto(digest_mail.link(steps.PREFERENCES))
    assert_accessible(page)
    page.locator("button[value=add]").click()
    expect(page.locator(".notice-good")).to_be_visible()
    assert_accessible(page)


def test_everyone_can_read_the_digest(page: Page, digest_mail: Mail) -> None:
    read_mail(page, digest_mail)
    assert_accessible(page, without=NOT_FOR_MAILS)


def test_everyone_can_read_the_digest_on_the_site(page: Page, digest_mail: Mail) -> None:
    page.goto(digest_mail.link("/newsletter/ausgabe/"))
    assert_accessible(page, without=NOT_FOR_MAILS)


@pytest.mark.usefixtures("digest_mail")
def test_all_of_the_staff_can_work_on_a_digest(desk: Page) -> None:
    desk.goto("/admin/digests/digest/")
    desk.locator("#result_list tbody a").first.click()
    expect(desk.locator("[data-state]")).to_be_visible()
    assert_accessible(desk, part="#content")
    desk.locator("a[href$='/preview/']").click()
    expect(desk.locator(".desk-frames")).to_be_visible()
    assert_accessible(desk, part="#content")


def test_all_of_the_staff_can_write_what_readers_agree_to(desk: Page) -> None:
    desk.goto("/admin/subscriptions/consenttext/add/")
    assert_accessible(desk, part="#content")
    desk.locator("a[href$='/de/']").nth(1).click()
    words = desk.locator("#id_wording").input_value()
    desk.locator("#id_wording").fill("Nichts.")
    desk.locator("form .desk-main").click()
    expect(desk.locator("#id_wording_error")).to_be_visible()
    assert_accessible(desk, part="#content")

    desk.locator("#id_wording").fill(f"{words} Kostenlos und ohne Werbung.")
    desk.locator("form .desk-main").click()
    phone, english = desk.frame_locator(".desk-phone >> nth=0"), desk.frame_locator(".desk-phone >> nth=1")
    expect(phone.locator(".choice-description", has_text="Kostenlos und ohne Werbung.")).to_be_visible()
    expect(english.locator("html")).to_have_attribute("lang", "en")
    expect(desk.locator(".desk-diff ins", has_text="Kostenlos")).to_be_visible()
    assert phone.locator("body").evaluate("body => getComputedStyle(body).fontFamily") != "Times"
    assert_accessible(desk, part="#content")

    desk.locator("form .desk-main").click()
    expect(desk.locator(".desk-wording", has_text="Kostenlos")).to_be_visible()
    assert_accessible(desk, part="#content")
    desk.goto("/admin/subscriptions/consenttext/")
    expect(desk.locator(".messagelist .warning").first).to_be_visible()


def test_all_of_the_staff_can_enter_a_letter_and_answer_it(desk: Page) -> None:
    desk.goto("/admin/")
    assert_accessible(desk, part=".start-acts")
    desk.locator(".start-acts a").click()
    assert_accessible(desk, part="#content")
    desk.locator("#id_address").fill("schreibt@lesen.example")
    desk.locator("input[name=kind][value=withdraw]").check()
    desk.locator("input[name=way][value=letter]").check()
    desk.locator("button[value=do]").click()
    expect(desk.locator("#id_newsletters_error")).to_be_visible()
    assert_accessible(desk, part="#content")

    desk.locator("input[name=kind][value=erase]").check()
    desk.locator("button[value=do]").click()
    expect(desk.locator("button[name=sure]")).to_be_visible()
    assert_accessible(desk, part="#content")
    desk.locator("button[name=edit]").click()
    expect(desk.locator("#id_address")).to_have_value("schreibt@lesen.example")
    desk.locator("input[name=kind][value=access]").check()
    desk.locator("button[value=note]").click()
    expect(desk.locator(".case-due")).to_be_visible()
    assert_accessible(desk, part="#content")
    desk.locator("a[href$='/extend/do/']").click()
    expect(desk.locator("textarea[name=reason]")).to_be_visible()
    assert_accessible(desk, part="#content")


def press_tab_to(page: Page, selector: str) -> None:
    """Press Tab once: it must lead there and be seen to have done so."""
    page.keyboard.press("Tab")
    expect(page.locator(selector)).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def read_mail(page: Page, mail: Mail) -> None:
    """Open the mail's HTML as a page of its own. (The mailbox shows it where no script runs, axe's included.)"""
    page.set_content(mail.html)
    page.wait_for_load_state("load")


def ask_too_often(site: str) -> str:
    """Send forms from one network until the site has had enough; return its words."""
    host, _, port = site.removeprefix("http://").partition(":")
    for _attempt in range(REQUESTS_PER_NETWORK + 1):
        connection = http.client.HTTPConnection(host, int(port), source_address=(ANOTHER_NETWORK, 0))
        connection.request("POST", "/newsletter/", "", {"Content-Type": "application/x-www-form-urlencoded"})
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
    assert response.status == 429
    return body


def test_all_of_the_staff_can_read_what_is_kept_for_how_long(desk: Page) -> None:
    desk.goto("/admin/retention/purgerun/")
    expect(desk.locator(".retention tbody tr").first).to_be_visible()
    assert_accessible(desk, part="#content")
