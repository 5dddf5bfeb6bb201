"""What every page must be: free of what axe finds, at each size and in both schemes, and without sideways scrolling."""

from collections.abc import Iterable
from typing import Any

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

from tests.browser.profiles import DESKTOP, PHONE

# A window of 1280 CSS pixels at 400 % zoom (WCAG 2.2, 1.4.10 Reflow).
NARROWEST = {"width": 320, "height": 256}

# The admin fades its colours from one scheme to the other.
SETTLED = "Promise.allSettled(document.getAnimations().map(animation => animation.finished))"

# Best practices for pages of a site that a mail, which is shown inside of one, cannot follow.
NOT_FOR_MAILS = ("region", "landmark-one-main", "page-has-heading-one", "skip-link")


def assert_accessible(page: Page, *, part: str | None = None, without: Iterable[str] = ()) -> None:
    """Fail with what axe finds on the page that is open, or on a part of it."""
    found = []
    for size in (PHONE, DESKTOP):
        page.set_viewport_size(size)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            found += [f"{size['width']} px, {scheme}: {line}" for line in _violations(page, part, without)]
    assert not found, "\n".join([page.url, *found])
    assert_no_sideways_scroll(page)


def assert_no_sideways_scroll(page: Page) -> None:
    for size in (PHONE, NARROWEST):
        page.set_viewport_size(size)
        width = page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= size["width"], f"{page.url} is {width} px wide in a window of {size['width']} px."
    page.set_viewport_size(DESKTOP)


def _violations(page: Page, part: str | None, without: Iterable[str]) -> list[str]:
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    page.evaluate(SETTLED)
    rules = {name: {"enabled": False} for name in without} | {"target-size": {"enabled": True}}
    options: dict[str, Any] = {"resultTypes": ["violations"], "rules": rules, "iframes": False}
    result = page.evaluate(
        "([part, options]) => axe.run(part ?? document, options).then(result => result.violations)", [part, options]
    )
    return [f"{rule['id']}: {node['html']} {node['failureSummary']}" for rule in result for node in rule["nodes"]]
