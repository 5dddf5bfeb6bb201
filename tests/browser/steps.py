"""What people do at the demo: readers sign up, confirm, ask for their data; staff plan a digest."""

import re
from datetime import datetime
from zoneinfo import ZoneInfo

from playwright.sync_api import Page, expect

from tests.browser.mailbox import Mail, Mailbox, holds

# The site sends a form back that comes faster than a person could (FORM_MINIMUM_FILL_SECONDS).
READING_TIME = 1100  # milliseconds

ZONE = ZoneInfo("Europe/Berlin")
CONFIRMATION = "/newsletter/bestaetigen/"
UNSUBSCRIBE = "/newsletter/abmelden/"
PREFERENCES = "/newsletter/einstellungen/"
RIGHTS = "/meine-daten/"
NEW_ADDRESS = "/meine-daten/adresse/"
WHY = "/newsletter/warum/"


def fill_in(page: Page, address: str, *newsletters: str) -> None:
    """Fill in the sign-up form of the page one is on."""
    for newsletter in newsletters:
        page.locator(f"#newsletter-{newsletter}").check()
    page.locator("#email").fill(address)
    page.wait_for_timeout(READING_TIME)


def send(page: Page) -> None:
    """Press the button of the form in the middle of the page."""
    page.locator("main form button[type=submit]").click()


def sign_up(page: Page, address: str, *newsletters: str) -> None:
    page.goto("/newsletter/")
    fill_in(page, address, *newsletters)
    send(page)
    expect(page).to_have_url(re.compile("/newsletter/fast-geschafft/$"))


def confirm(page: Page, mailbox: Mailbox, address: str) -> Mail:
    """Press the button behind the confirmation mail's link; return the mail."""
    mail = mailbox.wait_for(address, holds(CONFIRMATION))
    page.goto(mail.link(CONFIRMATION))
    send(page)
    expect(page).to_have_url(re.compile("/newsletter/bestaetigt/$"))
    return mail


def ask_for_data(page: Page, mailbox: Mailbox, address: str) -> Mail:
    """Ask for the link to one's data; return the mail it comes in."""
    page.goto("/meine-daten/")
    page.locator("#email").fill(address)
    page.wait_for_timeout(READING_TIME)
    send(page)
    expect(page).to_have_url(re.compile("/meine-daten/angefordert/$"))
    return mailbox.wait_for(address, holds(RIGHTS))


def plan_for_today(page: Page) -> None:
    """Fill in the schedule's form: today, so late that it does not go out by itself before the test has looked."""
    today = datetime.now(ZONE).weekday()
    for day in range(7):
        page.locator(f"#id_weekdays_{day}").set_checked(day == today)
    page.locator("#id_local_time").fill("23:59")
    page.locator("#id_time_zone").select_option("Europe/Berlin")
    page.locator("#id_approval input[value=required]").check()
    page.locator("[name=_save]").click()
    expect(page.locator(".messagelist .success")).to_be_visible()
