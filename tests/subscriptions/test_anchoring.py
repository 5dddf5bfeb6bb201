"""The head of the chain is noted outside, so that even a database written anew shows (R-11)."""

import logging
from datetime import timedelta

import pytest
from django.core import mail
from django.core.management import CommandError, call_command
from django.utils import timezone

from newsroom.mail import outbox
from newsroom.mail.models import OutboxMail
from subscriptions import anchoring, ledger
from subscriptions.models import ConsentSeal
from tests.subscriptions.test_ledger import tamper, write

pytestmark = pytest.mark.django_db


def test_r11_the_head_is_printed_and_logged(capsys, caplog):
    write(2)

    with caplog.at_level(logging.INFO, logger="subscriptions"):
        call_command("anchor")

    head = ConsentSeal.objects.get()
    assert capsys.readouterr().out.startswith(f"1:{head.hash} ")
    assert f"1:{head.hash}" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_r11_the_officer_gets_the_head_once_a_day(settings):
    now = timezone.localtime().replace(hour=5, minute=30)
    write()
    anchoring.anchor(now)
    anchoring.anchor(now + timedelta(hours=1))

    outbox.send_due(timezone.now() + timedelta(days=1))

    [message] = mail.outbox
    assert message.to == [settings.DPO["email"]]
    assert f"1:{ConsentSeal.objects.get().hash}" in message.body.replace("\n", "")
    assert anchoring.anchor(now + timedelta(days=1)) and OutboxMail.objects.filter(kind="anchor").count() == 2


def test_without_a_seal_there_is_nothing_to_note(capsys):
    call_command("anchor")

    assert "no seal" in capsys.readouterr().out
    assert not OutboxMail.objects.exists()


def test_r11_a_head_noted_earlier_is_found_in_the_chain(capsys):
    write()
    noted = anchoring.written(anchoring.anchor(timezone.now()))
    write()
    ledger.seal(timezone.now())

    call_command("audit", anchor=[noted])

    assert "All promises hold" in capsys.readouterr().out


def test_r11_a_cut_off_newest_seal_is_found_by_the_anchor_alone(capsys):
    """What was sealed last can be taken away without a trace within the database: that is what the anchor is for."""
    write()
    ledger.seal(timezone.now())
    [last] = write()
    noted = anchoring.written(anchoring.anchor(timezone.now()))
    tamper(
        f"DELETE FROM subscriptions_sealedrecord WHERE record_id = {last.pk}",
        f"DELETE FROM subscriptions_consentpayload WHERE record_id = {last.pk}",
        f"DELETE FROM subscriptions_consentrecord WHERE id = {last.pk}",
        "DELETE FROM subscriptions_consentseal WHERE number = 2",
    )

    assert ledger.verify() == []
    with pytest.raises(SystemExit, match="1"):
        call_command("audit", anchor=[noted])
    assert "Seal 2, noted outside, is gone" in capsys.readouterr().out


def test_r11_a_chain_written_anew_is_found_by_the_anchor(capsys):
    write()
    ledger.seal(timezone.now())

    with pytest.raises(SystemExit, match="1"):
        call_command("audit", anchor=["1:" + "0" * 64])
    assert "written anew" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["1", "x:" + "0" * 64, "1:abc", "²:" + "0" * 64])
def test_what_is_no_anchor_is_refused(text):
    with pytest.raises(CommandError, match="NUMBER:HASH"):
        call_command("audit", anchor=[text])
