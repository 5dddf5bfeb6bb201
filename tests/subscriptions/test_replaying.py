"""A restored backup brings nobody back: no mail goes until the erasure journal was replayed."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
import time_machine
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core import mail
from django.core.management import CommandError, call_command
from django.db import transaction
from django.utils import timezone, translation

from digests import delivery
from digests.models import Digest
from newsroom.mail import outbox
from newsroom.mail.addresses import canonicalise
from newsroom.mail.models import OutboxMail
from subscriptions import audit, erasures, privacy, suppression
from subscriptions.consent import Origin
from subscriptions.erasures import Erasure, find_obstacle
from subscriptions.models import ErasureReplay, SignUp, Subscriber, Suppression
from tests.backends import ScriptedBackend, addresses
from tests.makers import make_newsletter, make_sending_digest, make_subscriber, make_subscription
from tests.subscriptions.reading import send_form, subscribe

pytestmark = pytest.mark.django_db
ADDRESS = "leserin@example.com"


class Restored(Exception):
    pass


@contextmanager
def later_restored():
    """Undo in the database, but not in its journal, what happens within, as a restored backup does."""
    try:
        with transaction.atomic():
            yield
            raise Restored
    except Restored:
        pass


def erase(address: str) -> None:
    """Erase a reader who asked for it by letter."""
    request = privacy.request_link(canonicalise(address), now=timezone.now())
    OutboxMail.objects.filter(reference=request.uuid).delete()
    privacy.erase(request, origin=Origin(source="letter", actor="staff"), now=timezone.now())


def replay(*options: str) -> str:
    out = StringIO()
    call_command("replay_erasures", *options, stdout=out)
    return out.getvalue().strip()


def english(say) -> str:
    with translation.override("en"):
        return say()


def mails_sent() -> int:
    mail.outbox.clear()
    outbox.send_due(timezone.now() + timedelta(seconds=1))
    return len(mail.outbox)


def test_an_erasure_is_written_down_outside_the_database_without_the_address():
    subscribe(ADDRESS, make_newsletter())

    erase(ADDRESS)

    journal = Path(settings.ERASURE_JOURNAL).read_text()
    assert "leserin" not in journal
    assert json.loads(journal)["hash"] == suppression.address_hash(ADDRESS)
    assert Path(settings.ERASURE_JOURNAL).stat().st_mode & 0o077 == 0


def test_mail_goes_on_after_an_ordinary_erasure():
    subscribe(ADDRESS, make_newsletter())
    erase(ADDRESS)
    subscribe("andere@example.com", make_newsletter())
    erase("andere@example.com")

    send_form("dritte@example.com", make_newsletter())

    assert mails_sent() == 1
    assert audit.broken_invariants(timezone.now()) == []


def test_after_a_restored_backup_no_mail_goes_until_the_journal_was_replayed():
    subscribe(ADDRESS, make_newsletter())
    send_form("andere@example.com", make_newsletter())
    with later_restored():
        erase(ADDRESS)
    assert Subscriber.objects.exists()

    assert mails_sent() == 0
    assert replay() == "Erased again: 1"

    assert not Subscriber.objects.exists()
    assert suppression.find(ADDRESS).reason == Suppression.Reason.ERASURE
    assert mails_sent() == 1
    assert mail.outbox[0].to == ["andere@example.com"]


def test_the_reason_is_shown_to_staff_to_the_supervisor_and_by_the_audit(client):
    subscribe(ADDRESS, make_newsletter())
    with later_restored():
        erase(ADDRESS)
    client.force_login(get_user_model().objects.create_superuser("chefin", password="ein langes Kennwort"))

    assert "replay_erasures" in client.get("/admin/").content.decode()
    ready = client.get("/health/ready")
    assert ready.status_code == 200 and "replay_erasures" in ready.content.decode()
    assert any("replay_erasures" in sentence for sentence in audit.broken_invariants(timezone.now()))

    replay()

    assert "replay_erasures" not in client.get("/admin/").content.decode()
    assert client.get("/health/ready").content == b"ok\n"


def test_replaying_twice_erases_nothing_more():
    subscribe(ADDRESS, make_newsletter())
    with later_restored():
        erase(ADDRESS)
    replay()
    subscribe(ADDRESS, make_newsletter())

    assert replay() == "Erased again: 0"
    assert Subscriber.objects.filter(address_key=ADDRESS).exists()


def test_a_reader_who_signed_up_again_after_the_erasure_stays():
    subscribe(ADDRESS, make_newsletter())
    with later_restored():
        erase(ADDRESS)
    Subscriber.objects.update(created_at=timezone.now())  # in this backup the reader is the new one

    assert replay() == "Erased again: 0"
    assert Subscriber.objects.exists() and not suppression.is_suppressed(ADDRESS)


def test_a_sign_up_newer_than_the_erasure_survives_the_replay():
    subscribe(ADDRESS, make_newsletter())
    with later_restored():
        erase(ADDRESS)
    send_form(ADDRESS, make_newsletter())
    newest = SignUp.objects.order_by("-requested_at").first()

    replay()

    assert not Subscriber.objects.exists()
    assert list(SignUp.objects.values_list("uuid", "address_key")) == [(newest.uuid, ADDRESS)]
    assert mails_sent() == 1


def test_an_erased_address_the_backup_never_knew_is_suppressed():
    with later_restored():
        make_subscription(subscriber=make_subscriber(ADDRESS))
        erase(ADDRESS)
    assert not suppression.is_suppressed(ADDRESS)

    assert replay() == "Erased again: 0"
    assert suppression.find(ADDRESS).reason == Suppression.Reason.ERASURE


def test_an_erasure_in_a_restored_database_does_not_hide_what_it_still_has_to_replay():
    subscribe(ADDRESS, make_newsletter())
    subscribe("andere@example.com", make_newsletter())
    with later_restored():
        erase(ADDRESS)

    erase("andere@example.com")

    assert mails_sent() == 0
    assert replay() == "Erased again: 1"
    assert not Subscriber.objects.exists()


def test_a_line_torn_by_a_crash_harms_neither_the_erasure_after_it_nor_the_replay():
    subscribe(ADDRESS, make_newsletter())
    Path(settings.ERASURE_JOURNAL).write_bytes(b'{"at": "2026-11-2')
    replay()
    with later_restored():
        erase(ADDRESS)

    assert replay() == "Erased again: 1"
    assert mails_sent() == 0 and not audit.broken_invariants(timezone.now())


def test_a_lost_journal_holds_the_mail_until_someone_says_so():
    subscribe(ADDRESS, make_newsletter())
    erase(ADDRESS)
    Path(settings.ERASURE_JOURNAL).unlink()
    send_form("andere@example.com", make_newsletter())

    assert mails_sent() == 0
    with pytest.raises(CommandError, match="lost"):
        replay()
    replay("--journal-is-lost")
    assert mails_sent() == 1


def cut_off_after(*, days: int) -> int:
    return erasures.cut_off(timezone.now() + timedelta(days=days))


def test_r37_a_line_of_the_journal_goes_when_no_backup_can_need_it_and_the_database_need_not_know():
    for address in (ADDRESS, "andere@example.com"):
        subscribe(address, make_newsletter())
        erase(address)
    before = Path(settings.ERASURE_JOURNAL).read_text()

    assert cut_off_after(days=69) == 0 and Path(settings.ERASURE_JOURNAL).read_text() == before
    assert cut_off_after(days=71) == 2

    journal = Path(settings.ERASURE_JOURNAL)
    assert suppression.address_hash(ADDRESS) not in journal.read_text()
    assert journal.stat().st_mode & 0o077 == 0 and not list(journal.parent.glob("*.new"))
    assert find_obstacle() == "" and cut_off_after(days=71) == 0
    send_form("dritte@example.com", make_newsletter())
    assert mails_sent() == 1


def test_a_backup_younger_than_the_cut_is_replayed_as_before():
    subscribe("lange@example.com", make_newsletter())
    with time_machine.travel(timezone.now() - timedelta(days=80)):
        erase("lange@example.com")
    subscribe(ADDRESS, make_newsletter())
    with later_restored():
        erase(ADDRESS)
        assert cut_off_after(days=0) == 1
    assert "replay_erasures" in find_obstacle()

    assert replay() == "Erased again: 1"

    assert not Subscriber.objects.exists() and find_obstacle() == ""
    erase("dritte@example.com")
    assert find_obstacle() == "" and len(Path(settings.ERASURE_JOURNAL).read_bytes().splitlines()) == 3


def test_a_backup_older_than_the_cut_holds_the_mail_until_someone_says_so():
    subscribe(ADDRESS, make_newsletter())
    with later_restored():
        erase(ADDRESS)
        cut_off_after(days=71)
    send_form("andere@example.com", make_newsletter())

    assert "older than the erasure journal reaches back" in english(find_obstacle) and mails_sent() == 0
    with pytest.raises(CommandError, match="begins after this backup"):
        replay()
    replay("--journal-is-lost")
    assert mails_sent() == 1


def test_a_new_database_beside_a_journal_that_was_cut_off_sends_at_once():
    with later_restored():
        make_subscription(subscriber=make_subscriber(ADDRESS))
        with time_machine.travel(timezone.now() - timedelta(days=80)):
            erase(ADDRESS)
    assert cut_off_after(days=0) == 1
    subscribe("neue.leserin@leser.example", make_newsletter())

    assert find_obstacle() == ""


def test_a_line_torn_at_the_front_goes_with_the_lines_after_it_and_one_at_the_end_stays():
    line = json.dumps({"at": "2026-01-01T00:00:00+00:00", "hash": "0" * 64}).encode() + b"\n"
    journal = Path(settings.ERASURE_JOURNAL)
    journal.write_bytes(b'{"at": "2026-\n' + line + line[:20])

    assert cut_off_after(days=0) == 2

    assert journal.read_bytes().splitlines()[1:] == [line[:20]]


def test_no_erasure_is_lost_that_is_written_while_the_journal_is_cut_off():
    now = timezone.now()

    def write(number: int) -> int:
        with erasures._locked_journal() as file:
            erasures._append(file, Erasure(f"{number:064}", now))
        return erasures.cut_off(now + timedelta(days=71)) if number % 3 == 0 else 0

    with ThreadPoolExecutor(8) as pool:
        gone = sum(pool.map(write, range(200)))

    left, end = erasures.pending()
    assert gone > 60 and gone + len(left) == 200
    assert end.length % 200 == 0  # places count what is gone


def test_a_digest_is_not_handed_over_from_a_restored_database(settings):
    settings.EMAIL_BACKEND = "tests.backends.ScriptedBackend"
    ScriptedBackend.reset()
    digest = make_sending_digest(readers=3)
    erased = Subscriber.objects.order_by("pk").first()
    with later_restored():
        erase(erased.address)

    assert delivery.deliver_due() == 0
    replay()
    delivery.deliver_due()

    assert len(addresses()) == 2 and erased.address not in addresses()
    digest.refresh_from_db()
    assert digest.state == Digest.State.FINISHED


def test_erasures_hashed_with_a_former_key_are_replayed_too(settings):
    subscribe(ADDRESS, make_newsletter())
    with later_restored():
        erase(ADDRESS)
    settings.SUPPRESSION_KEY_FALLBACKS = [settings.SUPPRESSION_KEY]
    settings.SUPPRESSION_KEY = "a new key"

    assert replay() == "Erased again: 1"


def test_a_new_database_beside_an_old_journal_sends_at_once():
    with open(settings.ERASURE_JOURNAL, "a") as journal:
        journal.write(json.dumps({"at": (timezone.now() - timedelta(days=1)).isoformat(), "hash": "0" * 64}) + "\n")
    subscribe("neue.leserin@leser.example", make_newsletter())

    assert find_obstacle() == ""
    assert ErasureReplay.objects.get().length > 0
