"""Staff see on the start page what needs them, and let digests go after a restored backup."""

from playwright.sync_api import Page, expect

from tests.browser.accessibility import assert_accessible
from tests.browser.demo import Demo


def test_staff_let_digests_go_after_a_restored_backup(demo: Demo, desk: Page) -> None:
    desk.goto("/admin/")
    expect(desk.locator(".alarm-grave", has_text="Sicherung")).to_have_count(0)
    demo.seem_restored()

    desk.goto("/admin/")
    alarm = desk.locator(".alarm-grave", has_text="Sicherung")
    expect(alarm).to_be_visible()
    assert_accessible(desk, part="#content")
    alarm.get_by_role("link").click()
    expect(desk.locator("h1", has_text="zurückgehalten")).to_be_visible()
    assert_accessible(desk, part="#content")
    desk.get_by_role("button", name="Ausgaben freigeben").click()

    expect(desk.locator(".messagelist .success")).to_be_visible()
    desk.goto("/admin/")
    expect(desk.locator(".alarm-grave", has_text="Sicherung")).to_have_count(0)
