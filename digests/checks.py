"""Configuration of what comes back: without a secret anybody could report that a reader's address is dead."""

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.utils import timezone

from digests.webhooks import esps, sns
from digests.webhooks.signatures import Posted, Refused, setting
from newsroom.mail import messages, verp
from newsroom.mail.addresses import InvalidAddress, canonicalise

LONGEST_LOCAL_PART = 21  # a token and its sign take 43 of the 64 characters


def check_events(**_kwargs: Any) -> list[CheckMessage]:
    """Run by `manage.py check` and at every start."""
    return [*_check_secret(), *_check_secrets_are_usable(), *_check_topics(), *_check_bounce_address()]


def _check_secret() -> Iterator[CheckMessage]:
    slug = esps.current()
    if not slug:
        return
    esp = esps.ESPS[slug]
    found = esps.find_proof(esp)
    if found is None:
        names = " or ".join(f"ANYMAIL_{name}" for name, _proof in esp.proofs)
        hint = f"Set {names}; docs/events.md says where {esp.name} shows it, and which address to enter there."
        yield Error(f"There is no secret by which reports of {esp.name} are known.", hint=hint, id="digests.E001")
    elif found[0] == "MAILGUN_API_KEY":
        hint = "Set ANYMAIL_MAILGUN_WEBHOOK_SIGNING_KEY, unless the account is so old that its API key signs."
        yield Warning("Mailgun's reports are checked with the API key.", hint=hint, id="digests.W001")


def _check_secrets_are_usable() -> Iterator[CheckMessage]:
    for slug, esp in esps.ESPS.items():
        found = esps.find_proof(esp) if esps.is_in_use(slug) else None
        if found and not _is_usable(*found[1:]):
            yield Error(f"ANYMAIL_{found[0]} is not a secret as {esp.name} gives it.", id="digests.E002")
        elif found and found[0] == "WEBHOOK_SECRET" and not _are_passwords(found[2]):
            hint = "Write it as USER:PASSWORD, of long random letters and digits."
            yield Error("ANYMAIL_WEBHOOK_SECRET is no user and password.", hint=hint, id="digests.E003")


def _is_usable(proof: Any, secret: Any) -> bool:
    """Try the secret on nothing: a usable one refuses it."""
    nothing = Posted(body=b"{}", headers={}, path="/", at=timezone.now())
    try:
        proof(nothing, secret)
    except Refused:
        return True
    except Exception:  # whatever the libraries say of a key that is none
        return False
    return False


def _are_passwords(secret: Any) -> bool:
    secrets = [secret] if isinstance(secret, str) else secret
    return all(isinstance(each, str) and len(each.partition(":")[2]) >= 8 for each in secrets)


def _check_topics() -> Iterator[CheckMessage]:
    topics = setting("AMAZON_SES_SNS_TOPICS") or []
    if not all(sns.is_topic(topic) for topic in ([topics] if isinstance(topics, str) else topics)):
        hint = 'Write it as ["arn:aws:sns:eu-central-1:123456789012:name"].'
        yield Error("ANYMAIL_AMAZON_SES_SNS_TOPICS names what is no topic of SNS.", hint=hint, id="digests.E004")


def _check_bounce_address() -> Iterator[CheckMessage]:
    if not settings.BOUNCE_ADDRESS:
        return
    try:
        address = canonicalise(settings.BOUNCE_ADDRESS).canonical
    except InvalidAddress:
        yield Error("BOUNCE_ADDRESS is not an e-mail address.", id="digests.E005")
        return
    local, _at, domain = address.rpartition("@")
    if address != settings.BOUNCE_ADDRESS or "+" in local or len(local) > LONGEST_LOCAL_PART:
        hint = (
            f"Write it as bounces@news.example.org: without a plus sign, at most {LONGEST_LOCAL_PART} letters before @."
        )
        yield Error("BOUNCE_ADDRESS cannot be told apart for each mail.", hint=hint, id="digests.E006")
    own = messages.own_domain()
    if not (domain == own or domain.endswith(f".{own}") or own.endswith(f".{domain}")):
        hint = f"Choose an address at {own} or below it, or SPF proves nothing for DMARC (E-33, E-38)."
        yield Warning("BOUNCE_ADDRESS is of another domain than the sender.", hint=hint, id="digests.W002")
    if settings.EMAIL_BACKEND not in verp.SMTP_BACKENDS:
        hint = "The provider takes mails back itself and reports by webhook; docs/events.md says how."
        yield Warning("BOUNCE_ADDRESS is used with SMTP only.", hint=hint, id="digests.W003")
