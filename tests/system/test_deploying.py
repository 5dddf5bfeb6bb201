"""A new release comes in the middle of a digest: workers are asked to end, and new ones go on where they were."""

import shutil
import time

import pytest

from tests.processes import ROOT
from tests.torture.harness import account_of, is_done, make_digest_to

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]


def test_rolling_restarts_under_load_lose_and_double_nothing(site, carrier, sized, figure, settings):
    settings.DELIVERY_BATCH_SIZE = 50
    restarts = sized(2, 20)
    provider = carrier("postmark")
    provider.do_wrong(delay=0.4)
    site.env |= provider.environment()
    digest, addresses = make_digest_to(sized(1500, 8000))
    workers = [site.worker(f"worker-{number}", concurrency=2) for number in range(2)]
    site.beat()
    for number in range(restarts):
        site.wait_until(lambda: provider.digests)
        site.stop(workers.pop(0))
        was_under_load = not is_done(digest)
        workers.append(site.worker(f"worker-{number + 2}", concurrency=2))
    site.wait_until(lambda: is_done(digest), timeout=180)

    account = account_of(digest, addresses, provider)
    figure(f"{restarts} rolling restarts by SIGTERM: {account}")
    account.check()
    assert was_under_load
    assert account.mailed == len(addresses) and account.listed == {}


@pytest.mark.torture
def test_a_changed_template_in_mid_send_changes_no_copy(site, carrier, sized, figure, tmp_path, settings):
    settings.DELIVERY_BATCH_SIZE = 50
    provider = carrier("postmark")
    provider.do_wrong(delay=0.1)
    site.env |= provider.environment()
    digest, addresses = make_digest_to(sized(1000, 5000))
    site.beat()
    old = site.worker("old", concurrency=2)
    site.wait_until(lambda: len(provider.mailed) > len(addresses) / 4)

    site.stop(old)
    site.root = release_with_other_templates(tmp_path / "release")
    before = len(provider.mailed)
    site.worker("new", concurrency=2)
    site.wait_until(lambda: is_done(digest), timeout=120)
    time.sleep(1)

    account = account_of(digest, addresses, provider)
    contents = {entry["content"] for entry in provider.digests}
    after = len(addresses) - before
    figure(f"deploy with other templates, {after} copies left: {account}; {len(contents)} version of the text")
    account.check()
    assert account.mailed == len(addresses) and after > 0
    assert len(contents) == 1


def release_with_other_templates(folder):
    for name in ("newsroom", "subscriptions", "digests", "templates"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "manage.py", folder)
    for template in (folder / "templates" / "digests" / "mail").iterdir():
        template.write_text(template.read_text().replace("{{", "NEU {{"))
    return folder
