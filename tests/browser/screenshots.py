"""Takes the pictures in docs/screenshots from a demo of their own: `make screenshots`."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from newsroom.management.guard import Guard
from tests.browser import steps
from tests.browser.demo import Demo
from tests.browser.mailbox import DIGEST_PATIENCE, Mailbox, is_digest
from tests.browser.profiles import DESKTOP, PHONE, Profiles, launch, log_in

FOLDER = Path(__file__).parent.parent.parent / "docs" / "screenshots"
LARGEST = 400_000  # bytes; the pictures are part of every clone
PALETTES = (256, 128, 64)
SHARPNESS = 2  # pixels of the picture to one of the phone's page
ADDRESS = "erna.kroeger@lesen.example"
SEEN = "[...document.images].every(image => image.getBoundingClientRect().top > innerHeight || image.naturalWidth)"


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with a_demo() as demo, sync_playwright() as playwright, closing(launch(playwright)) as browser:
        desktop, phone = Profiles(browser, demo.site), Profiles(browser, demo.site)
        for device, page in {
            "desktop": desktop.open(viewport=DESKTOP),
            "phone": phone.open(viewport=PHONE, device_scale_factor=SHARPNESS, is_mobile=True, has_touch=True),
        }.items():
            for name in walk(page, demo, device=device):
                take(page, f"{name}-{device}")
        assert not (problems := desktop.close() + phone.close()), problems


@contextmanager
def a_demo() -> Iterator[Demo]:
    guard = Guard()
    try:
        with tempfile.TemporaryDirectory(prefix="newsroom-screenshots-") as folder:
            demo = Demo(guard=guard, folder=Path(folder))
            try:
                yield demo
            finally:
                demo.end()
    finally:
        guard.close()


def walk(page: Page, demo: Demo, *, device: str) -> Iterator[str]:
    """Walk through the site; stop at each page that is worth a picture, and give its name."""
    address, mailbox = f"{device}.{ADDRESS}", Mailbox(demo.site)
    page.goto("/")
    yield "front"
    page.locator(".columns .story-headline a").first.click()
    yield "article"
    page.goto("/newsletter/")
    steps.fill_in(page, "erna.kroeger@lesen")
    steps.send(page)
    yield "sign-up-error"
    steps.fill_in(page, address, "der-tag")
    steps.send(page)
    page.goto(mailbox.wait_for(address).link(steps.CONFIRMATION))
    yield "confirm"
    steps.send(page)
    mail = mailbox.wait_for(address, is_digest("der-tag"), patience=DIGEST_PATIENCE)
    page.goto(mail.link(steps.PREFERENCES))
    yield "preferences"
    page.goto(mail.link(steps.WHY))
    yield "why"
    page.goto(f"{mail.page}html/")
    yield "digest"
    page.goto(steps.ask_for_data(page, mailbox, address).link(steps.RIGHTS))
    steps.send(page)
    page.locator("details.held summary").nth(1).click()
    page.locator("h2:has(+ details.held)").evaluate("heading => heading.scrollIntoView()")
    yield "my-data"
    log_in(page, user=demo.user, password=demo.password)
    open_a_digest(page)
    yield "admin-digest"


def open_a_digest(page: Page) -> None:
    """Open the digest of the weekly, which nobody has sent yet; the first time it has to be made."""
    page.goto("/admin/digests/digest/")
    made = page.locator("#result_list tbody tr", has_text="Wochenschau").locator("a")
    if made.count():
        made.click()
    else:
        page.goto("/admin/digests/digestschedule/")
        page.locator("#result_list a", has_text="Wochenschau").click()
        steps.plan_for_today(page)
        page.locator("#result_list a", has_text="Wochenschau").click()
        page.locator("form[action$='/make/'] button").click()
    expect(page.locator("[data-state=compiled]")).to_be_visible()


def take(page: Page, name: str) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_load_state("networkidle")
        page.wait_for_function(SEEN)
        path = FOLDER / f"{name}-{scheme}.png"
        page.screenshot(path=path, animations="disabled")
        make_small(path)
        sys.stdout.write(f"{path.relative_to(Path.cwd())}  {path.stat().st_size // 1000} kB\n")


def make_small(path: Path) -> None:
    """Reduce a picture's colours until it is small enough."""
    picture = Image.open(path).convert("RGB")
    for colours in PALETTES:
        picture.quantize(colours, kmeans=1, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= LARGEST:
            return
    raise ValueError(f"{path} is larger than {LARGEST} bytes in {PALETTES[-1]} colours.")


if __name__ == "__main__":
    main()
