"""Mails that come back: read from a pipe or a folder, and believed only where they prove what they are about."""

import io
import sys
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.utils import timezone
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from digests import bounces, delivery, events
from digests.models import Delivery, ProviderEvent
from newsroom.mail import verp
from newsroom.mail.models import OutboxMail
from subscriptions import suppression
from subscriptions.models import ConsentRecord, Subscription, Suppression
from tests.bounce_mails import ADDRESS, answering_machine, complaint, delivery_report
from tests.compliance.conftest import post  # noqa: F401
from tests.makers import make_newsletter, make_sending_digest, make_subscriber, make_subscription
from tests.subscriptions.reading import send_form

pytestmark = pytest.mark.django_db

Kind = ProviderEvent.Kind


@pytest.fixture(autouse=True)
def _returning(settings):
    settings.BOUNCE_ADDRESS = "bounces@wochenblitz.example"


@pytest.fixture
def sent(post):  # noqa: F811
    """A mail that an SMTP server took, and the address it would return to."""
    newsletter = make_newsletter()
    make_subscription(newsletter, make_subscriber(ADDRESS))
    make_sending_digest(readers=0, newsletter=newsletter)
    delivery.deliver_due()
    (mail,) = post.server.received
    return Delivery.objects.get(), mail.sender


def pipe(monkeypatch, content, *arguments):
    monkeypatch.setattr(sys, "stdin", type("Input", (), {"buffer": io.BytesIO(content)}))
    call_command("ingest_bounce", *arguments)
    events.process(timezone.now())


def test_each_mail_returns_to_an_address_of_its_own_below_our_domain(sent):
    row, sender = sent

    local, _at, domain = sender.rpartition("@")
    assert domain == "wochenblitz.example" and len(local) <= 64
    assert verp.find_row([f"<{sender.upper()}>"]) == row.uuid
    assert verp.find_row([sender.replace("+", "+a")[:-1]]) is None


def test_without_a_return_address_the_sender_takes_what_comes_back(settings, post):  # noqa: F811
    settings.BOUNCE_ADDRESS = ""
    make_sending_digest(readers=1)
    delivery.deliver_due()

    assert post.server.received[0].sender in settings.DEFAULT_FROM_EMAIL


def test_a_return_address_outlives_a_change_of_the_key(sent, settings):
    row, sender = sent
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "a new key" * 5

    assert verp.find_row([sender]) == row.uuid
    settings.SECRET_KEY_FALLBACKS = []
    assert verp.find_row([sender]) is None


def test_the_return_address_of_a_mail_sent_long_ago_is_still_made_and_read(settings):
    settings.BOUNCE_ADDRESS = "bounces@wochenblitz.example"
    settings.SECRET_KEY = "an-older-key-for-tests-0123456789-0123456789-0123456789"
    row = UUID("0b8f2a34-7f0c-4a9e-9d55-6d0f6f5f2a11")
    address = "bounces+bohsund7brfj5hkvnuhw6xzkcgfn3xorsa6u2ferw4@wochenblitz.example"

    assert verp.return_address(row) == address
    assert verp.find_row([address]) == row


def test_a_mail_that_comes_back_for_good_ends_the_readers_subscriptions(sent, monkeypatch, capsys):
    row, sender = sent

    pipe(monkeypatch, delivery_report(sender))

    row.refresh_from_db()
    assert (row.state, row.reason) == ("bounced", "hard_bounce")
    assert Subscription.objects.get().state == "ended"
    assert suppression.find(ADDRESS).reason == Suppression.Reason.HARD_BOUNCE
    proof = ConsentRecord.objects.get(type="withdrawn").payload.body
    assert (proof["actor"], proof["source"]) == ("provider", "bounce_mail")
    assert ADDRESS not in capsys.readouterr().out
    assert ProviderEvent.objects.get().raw == ""


@pytest.mark.parametrize(
    ("status", "diagnosis", "kind"),
    [
        ("5.1.1", "smtp; 550 5.1.1 User unknown", Kind.HARD_BOUNCE),
        ("5.1.10", "smtp; 550 5.1.10 Recipient not found", Kind.HARD_BOUNCE),
        ("5.2.1", "smtp; 550 mailbox disabled", Kind.HARD_BOUNCE),
        ("5.0.0", "smtp; 550 5.1.1 User unknown", Kind.HARD_BOUNCE),
        ("5.0.0", "smtp; 550 no", Kind.SOFT_BOUNCE),
        ("5.2.2", "smtp; 552 5.2.2 Mailbox full", Kind.SOFT_BOUNCE),
        ("5.4.4", "X-Postfix; Host or domain name not found", Kind.SOFT_BOUNCE),
        ("4.4.7", "smtp; 451 4.4.7 expired", Kind.SOFT_BOUNCE),
        ("5.7.1", "smtp; 550 5.7.1 Message rejected as spam", Kind.BLOCKED),
        ("5.3.4", "smtp; 552 5.3.4 Message too big", Kind.BLOCKED),
        ("5.1.8", "smtp; 550 5.1.8 Bad sender's system address", Kind.BLOCKED),
        ("", "", Kind.SOFT_BOUNCE),
    ],
)
def test_the_status_code_decides_how_grave_a_returned_mail_is(sent, status, diagnosis, kind):
    returned = bounces.understand(delivery_report(sent[1], status=status, diagnosis=diagnosis))

    assert returned.kind == kind


@pytest.mark.parametrize(
    ("action", "kind"), [("delayed", Kind.ACCEPTED), ("delivered", Kind.DELIVERED), ("relayed", Kind.DELIVERED)]
)
def test_a_report_of_something_else_than_a_failure_is_no_bounce(sent, monkeypatch, action, kind):
    row, sender = sent
    pipe(monkeypatch, delivery_report(sender, action=action, status="2.0.0", diagnosis=""))

    row.refresh_from_db()
    assert ProviderEvent.objects.get().kind == kind
    assert row.state == "" and Subscription.objects.get().state == "active"


def forged_reports(sender):
    """Reports by somebody who knows the reader's address, and even how return addresses look."""
    token = sender.partition("+")[2].partition("@")[0]
    others = "abcdefghijklmnopqrstuvwxyz234567".replace(token[-1], "")
    yield delivery_report("bounces@wochenblitz.example")
    # The last letter carries three bits only: some others stand for the same octets.
    for other in others:
        yield delivery_report(f"bounces+{token[:-1]}{other}@wochenblitz.example")
    yield delivery_report(f"bounces+{'a' * 42}@wochenblitz.example")
    yield delivery_report("newsletter@wochenblitz.example")
    yield complaint("newsletter@wochenblitz.example")
    yield complaint(f"bounces+{'a' * 42}@wochenblitz.example")
    yield complaint("", quoted_return_path=ADDRESS)


def test_a_report_that_proves_nothing_changes_nothing(sent, monkeypatch):
    row, sender = sent

    for content in forged_reports(sender):
        pipe(monkeypatch, content)

    assert not ProviderEvent.objects.exists()
    row.refresh_from_db()
    assert row.state == "" and Subscription.objects.get().state == "active"


def test_e16_an_answering_machine_is_neither_answered_nor_believed(sent, monkeypatch, post):  # noqa: F811
    _row, sender = sent

    pipe(monkeypatch, answering_machine(sender))

    assert not ProviderEvent.objects.exists() and not OutboxMail.objects.exists()
    assert len(post.all()) == 1
    assert Subscription.objects.get().state == "active"


@pytest.mark.parametrize("where", ["Original-Mail-From", "Return-Path"])
def test_a_complaint_by_mail_ends_everything(sent, monkeypatch, where):
    row, sender = sent
    content = (
        complaint(sender) if where == "Original-Mail-From" else complaint("x@isp.example", quoted_return_path=sender)
    )

    pipe(monkeypatch, content)

    row.refresh_from_db()
    assert row.state == "complained" and Subscription.objects.get().state == "ended"
    assert suppression.is_blocked(ADDRESS)


def test_not_spam_is_no_complaint(sent, monkeypatch):
    pipe(monkeypatch, complaint(sent[1], kind="not-spam"))

    assert not ProviderEvent.objects.exists()


def test_the_same_report_counts_once_however_it_arrives(sent, monkeypatch):
    _row, sender = sent
    for _ in range(3):
        pipe(monkeypatch, delivery_report(sender, status="4.4.7"))

    assert ProviderEvent.objects.count() == 1


def test_a_pipe_that_names_the_recipient_needs_no_header(sent, monkeypatch):
    row, sender = sent
    content = delivery_report("undisclosed@wochenblitz.example")

    monkeypatch.setenv("ORIGINAL_RECIPIENT", sender)
    pipe(monkeypatch, content)

    row.refresh_from_db()
    assert row.state == "bounced"


def test_a_maildir_is_emptied_of_what_is_understood_and_the_rest_is_left(sent, tmp_path, capsys):
    row, sender = sent
    for name in ("new", "cur", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "new" / "1.mx").write_bytes(delivery_report(sender))
    (tmp_path / "new" / "2.mx").write_bytes(answering_machine(sender))

    call_command("ingest_bounce", maildir=tmp_path)
    call_command("ingest_bounce", maildir=tmp_path)
    events.process(timezone.now())

    row.refresh_from_db()
    assert row.state == "bounced"
    assert sorted(path.name for path in tmp_path.rglob("*.mx*")) == ["2.mx:2,"]
    assert capsys.readouterr().out.splitlines() == [
        "Taken in: hard_bounce",
        "No report of a mail of ours; nothing is done.",
    ]


def test_without_a_return_address_there_is_nothing_to_take_in(settings, tmp_path):
    settings.BOUNCE_ADDRESS = ""

    with pytest.raises(CommandError, match="BOUNCE_ADDRESS"):
        call_command("ingest_bounce", maildir=tmp_path)


def test_a_folder_that_is_no_maildir_is_named_as_such(tmp_path):
    with pytest.raises(CommandError, match="no Maildir"):
        call_command("ingest_bounce", maildir=tmp_path)


def test_a_database_that_is_away_makes_the_mail_server_try_again(sent, monkeypatch):
    def away(*_args):
        raise OperationalError("away")

    with connection.execute_wrapper(away), pytest.raises(SystemExit) as ended:
        pipe(monkeypatch, delivery_report(sent[1]))

    assert ended.value.code == 75


def test_a_confirmation_that_comes_back_suppresses_the_address(settings, post, monkeypatch):  # noqa: F811
    send_form(ADDRESS, make_newsletter())
    (mail,) = post.to(ADDRESS)

    pipe(monkeypatch, delivery_report(mail.sender))

    assert suppression.find(ADDRESS).reason == Suppression.Reason.HARD_BOUNCE
    assert OutboxMail.objects.get().state == "sent" and OutboxMail.objects.get().reason == "hard_bounce"


def harmful(sender):
    report = delivery_report(sender)
    yield b""
    yield b"\x00" * 2_000_000
    yield report.replace(b"Action: failed", b"Action: \xff\xfe\x00failed")
    yield report.replace(b"Status: 5.1.1", b"Status: " + b"5." * 100_000)
    yield report[:600]
    yield b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (n, n) for n in range(3_000))
    yield b"Content-Type: message/rfc822\r\n\r\n" * 3_000
    yield b'Content-Type: multipart/report; boundary="x"\r\n\r\n' + b"--x\r\n\r\n" * 200_000
    yield report.replace(b"us-ascii", b"no-such-charset").replace(b"text/plain", b"image/png")
    yield report.replace(b"message/delivery-status\n", b"message/delivery-status\nContent-Transfer-Encoding: base64\n")


def test_broken_deep_and_huge_mails_do_no_harm(sent, monkeypatch):
    row, sender = sent

    for content in harmful(sender):
        pipe(monkeypatch, content)

    row.refresh_from_db()
    assert row.state in {"", "bounced"}
    assert not ProviderEvent.objects.filter(kind=Kind.COMPLAINT).exists()


@given(noise=st.binary(max_size=400), at=st.integers(0, 1500))
@hypothesis_settings(max_examples=150, deadline=None)
def test_whatever_is_in_a_mail_is_read_without_an_error(noise, at):
    report = delivery_report("bounces+x@wochenblitz.example")

    assert bounces.understand(report[:at] + noise + report[at:]) is None
    assert bounces.understand(noise) is None
