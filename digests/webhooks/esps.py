"""The providers that report by HTTP: how each proves itself, how a request divides into reports, and how one is read.

Reading is Anymail's; where it would stumble over a report or blur what it says, the raw report decides.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from anymail.webhooks.amazon_ses import AmazonSESTrackingWebhookView
from anymail.webhooks.brevo import BrevoTrackingWebhookView
from anymail.webhooks.mailersend import MailerSendTrackingWebhookView
from anymail.webhooks.mailgun import MailgunTrackingWebhookView
from anymail.webhooks.mailjet import MailjetTrackingWebhookView
from anymail.webhooks.mailtrap import MailtrapTrackingWebhookView
from anymail.webhooks.mandrill import MandrillCombinedWebhookView
from anymail.webhooks.postal import PostalTrackingWebhookView
from anymail.webhooks.postmark import PostmarkTrackingWebhookView
from anymail.webhooks.resend import ResendTrackingWebhookView
from anymail.webhooks.sendgrid import SendGridTrackingWebhookView
from anymail.webhooks.sparkpost import SparkPostTrackingWebhookView
from anymail.webhooks.unisender_go import UnisenderGoTrackingWebhookView
from django.conf import settings

from digests.models import ProviderEvent
from digests.webhooks import severity, signatures, sns
from digests.webhooks.signatures import Malformed, Posted, Proof, Refused, setting
from newsroom.mail import marks

Raw = dict[str, Any]
Kind = ProviderEvent.Kind

# Nobody is watched: what a reader opened or followed is not even stored, should a provider report it all the same.
_WATCHING = re.compile(r"open|click|loaded", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a report says, in our words: of which row, what happened, with which status code, when, at which address."""

    kind: ProviderEvent.Kind
    rows: tuple[UUID, ...] = ()
    message_id: str = ""
    recipient: str = ""
    code: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Esp:
    """One provider. `proofs` are settings of Anymail's and what they prove; the first one that is set decides."""

    name: str
    view: Any
    proofs: tuple[tuple[str, Proof], ...]
    divide: Callable[[bytes], list[Raw]]
    what: Callable[[Raw], Any]
    identify: Callable[[Raw], Any] = field(default=lambda raw: raw)
    read: Callable[[Any, Raw], list[Any]] = field(default=lambda view, raw: [view.esp_to_anymail_event(raw)])


def find_proof(esp: Esp) -> tuple[str, Proof, Any] | None:
    """Return the setting, the proof and the secret by which a provider is known; None if no secret is set."""
    found = ((name, proof, setting(name)) for name, proof in esp.proofs)
    return next(((name, proof, secret) for name, proof, secret in found if secret), None)


def is_in_use(slug: str) -> bool:
    """Whether the provider carries our mail, or did so lately: then its settings are still there."""
    prefix = slug.upper() + "_"
    return current() == slug or any(name.startswith(prefix) and value for name, value in settings.ANYMAIL.items())


def current() -> str:
    """Return the provider that carries our mail; empty if it does not report by HTTP."""
    match = re.match(r"anymail\.backends\.(\w+)\.", settings.EMAIL_BACKEND)
    slug = {"sendinblue": "brevo"}.get(match[1], match[1]) if match else ""
    return slug if slug in ESPS else ""


def authenticate(slug: str, posted: Posted) -> None:
    """Raise `Refused` unless the request proves that it comes from this provider, and not from somebody who kept it."""
    found = find_proof(ESPS[slug]) if slug in ESPS and is_in_use(slug) else None
    if found is None:
        raise _NotConfigured("not configured")
    _name, proof, secret = found
    proof(posted, secret)


class _NotConfigured(Refused):
    status = 404


def reports_in(slug: str, body: bytes) -> dict[str, str]:
    """Return the reports of an authenticated request, each as JSON by its key, without those that watch readers."""
    esp = ESPS[slug]
    raws = [(raw, _safely(esp.what, raw)) for raw in esp.divide(body)]
    if raws and not any(what for _raw, what in raws):
        raise Malformed("nothing of this provider's")
    wanted = [raw for raw, what in raws if not _WATCHING.search(str(what))]
    try:
        return {key_of(slug, esp.identify(raw)): json.dumps(raw, separators=(",", ":")) for raw in wanted}
    except RecursionError:  # nested just so deep that it can be read and not be written
        raise Malformed("nested too deeply") from None


def key_of(source: str, what: Any) -> str:
    """Return what a report is known by, however often and in whichever order of its fields it comes."""
    text = json.dumps([source, what], sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()


def read(slug: str, raw: Raw) -> list[Report]:
    """Return what a stored report says; nothing if it is about no mail. Raises whatever Anymail stumbles over."""
    esp = ESPS[slug]
    view = esp.view.__new__(esp.view)  # its __init__ asks for secrets, which reading does without
    return [_report(slug, raw, event) for event in esp.read(view, raw)]


def _report(slug: str, raw: Raw, event: Any) -> Report:
    code = severity.code_in(event.mta_response, event.description, raw)
    return Report(
        kind=severity.kind_of(slug, raw, event.event_type, code=code),
        rows=tuple(dict.fromkeys(_rows(event, raw))),
        message_id=_as_stored(event.message_id),
        recipient=str(event.recipient or ""),
        code=code,
        at=event.timestamp,
    )


def _as_stored(message_id: Any) -> str:
    """Return the id as our own record may hold it; one that no database can be asked for belongs to no mail of ours."""
    text = str(message_id or "")[:255]
    return text if text.isprintable() else ""


def _rows(event: Any, raw: Raw) -> Iterator[UUID]:
    """Yield the rows a report names: by the mark we gave its mail, else by our own Message-ID."""
    metadata = event.metadata if isinstance(event.metadata, dict) else {}
    tags = event.tags if isinstance(event.tags, list) else []
    header = _safely(lambda report: report["payload"]["message"]["message_id"], raw)  # Postal's
    for text in (metadata.get(marks.KEY), *tags, event.message_id, header):
        if isinstance(text, str) and (match := _UUID.match(text.strip("<>").lower())):
            yield UUID(match[0])


def _safely(look: Callable[[Raw], Any], raw: Raw) -> Any:
    try:
        return look(raw)
    except (KeyError, TypeError, IndexError, AttributeError, StopIteration):
        return None


# How requests divide into reports


def _one_or_more(body: bytes) -> list[Raw]:
    found = signatures.read_json(body)
    return _objects(found if isinstance(found, list) else [found])


def _listed(name: str) -> Callable[[bytes], list[Raw]]:
    return lambda body: _objects(signatures.json_object(body).get(name))


def _objects(found: Any) -> list[Raw]:
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise Malformed("no list of reports")
    return found


def _of_mailgun(body: bytes) -> list[Raw]:
    report = signatures.json_object(body)
    if not isinstance(report.get("event-data"), dict):
        raise Malformed("no event")
    return [report]


def _of_mandrill(body: bytes) -> list[Raw]:
    return _objects(signatures.read_json(signatures.form(body).get("mandrill_events", "")))


def _of_sparkpost(body: bytes) -> list[Raw]:
    found = _one_or_more(body)
    if not all(isinstance(each.get("msys"), dict) for each in found):
        raise Malformed("nothing of SparkPost's")
    return [each for each in found if each["msys"]]  # an empty one is a sign of life


def _of_unisender(body: bytes) -> list[Raw]:
    found = signatures.json_object(body)
    if "events_by_user" not in found:
        return [found] if found.get("event_name") == "transactional_email_status" else []
    events = [event for user in _objects(found["events_by_user"]) for event in _objects(user.get("events"))]
    return _objects(
        [each.get("event_data") for each in events if each.get("event_name") == "transactional_email_status"]
    )


def _of_sns(body: bytes) -> list[Raw]:
    message = signatures.json_object(body)
    sent = {name: message.get(name) for name in ("MessageId", "Timestamp")}
    if message["Type"] == "SubscriptionConfirmation":
        return [{"confirm": {"topic": message["TopicArn"], "token": str(message.get("Token", ""))}, "sns": sent}]
    if message["Type"] != "Notification" or str(message.get("Message", "")).startswith("Successfully validated SNS"):
        return []
    return [{"event": signatures.json_object(str(message.get("Message", "")).encode("utf-8", "replace")), "sns": sent}]


# How reports are read where Anymail's common way does not do


def _read_ses(view: Any, raw: Raw) -> list[Any]:
    return list(view.esp_to_anymail_events(raw["event"], raw["sns"])) if "event" in raw else []


def _read_brevo(view: Any, raw: Raw) -> list[Any]:
    """Other mails of the same account may carry anything in this header, and Anymail stumbles over what is no JSON."""
    custom = raw.get("X-Mailin-custom")
    try:
        is_ours = isinstance(json.loads(str(custom)), dict)
    except (ValueError, RecursionError):
        is_ours = False
    return [view.esp_to_anymail_event(raw if is_ours else {**raw, "X-Mailin-custom": "{}"})]


def _read_postal(view: Any, raw: Raw) -> list[Any]:
    return list(view.parse_events(_AsRequest(json.dumps(raw).encode())))


def _read_resend(view: Any, raw: Raw) -> list[Any]:
    return [view.esp_to_anymail_event(raw, _AsRequest(b""))]


def _read_mandrill(view: Any, raw: Raw) -> list[Any]:
    return [view.mandrill_tracking_to_anymail_event(raw)]


def _read_sparkpost(view: Any, raw: Raw) -> list[Any]:
    # Its __init__ would only add a way to watch readers.
    event_class, event, whole = view.unwrap_event(raw)
    return [view.esp_to_anymail_event(event_class, event, whole)] if event else []


@dataclass(frozen=True, slots=True)
class _AsRequest:
    """As much of a request as Anymail looks at while it reads."""

    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


_BASIC = (("WEBHOOK_SECRET", signatures.basic),)

ESPS: dict[str, Esp] = {
    "amazon_ses": Esp(
        name="Amazon SES",
        view=AmazonSESTrackingWebhookView,
        proofs=(("AMAZON_SES_SNS_TOPICS", sns.verify),),
        divide=_of_sns,
        what=lambda raw: raw["event"].get("eventType") or raw["event"]["notificationType"] if "event" in raw else "SNS",
        identify=lambda raw: raw["event"] if "event" in raw else raw["confirm"],
        read=_read_ses,
    ),
    "brevo": Esp(
        name="Brevo",
        view=BrevoTrackingWebhookView,
        proofs=_BASIC,
        divide=_one_or_more,
        what=lambda raw: raw["event"],
        read=_read_brevo,
    ),
    "mailersend": Esp(
        name="MailerSend",
        view=MailerSendTrackingWebhookView,
        proofs=(("MAILERSEND_SIGNING_SECRET", signatures.body_mac("Signature")),),
        divide=_one_or_more,
        what=lambda raw: raw["data"]["type"],
        identify=lambda raw: raw.get("data", raw),
    ),
    "mailgun": Esp(
        name="Mailgun",
        view=MailgunTrackingWebhookView,
        # Accounts made before there were signing keys sign with the API key.
        proofs=(("MAILGUN_WEBHOOK_SIGNING_KEY", signatures.mailgun), ("MAILGUN_API_KEY", signatures.mailgun)),
        divide=_of_mailgun,
        what=lambda raw: raw["event-data"]["event"],
        # The signature covers its token alone: one token is good for one report, whatever else it is sent with.
        identify=lambda raw: raw["signature"]["token"],
    ),
    "mailjet": Esp(
        name="Mailjet",
        view=MailjetTrackingWebhookView,
        proofs=_BASIC,
        divide=_one_or_more,
        what=lambda raw: raw["event"],
    ),
    "mailtrap": Esp(
        name="Mailtrap",
        view=MailtrapTrackingWebhookView,
        proofs=(("MAILTRAP_TRACKING_SECRET", signatures.body_mac("Mailtrap-Signature")), *_BASIC),
        divide=_listed("events"),
        what=lambda raw: raw["event"],
    ),
    "mandrill": Esp(
        name="Mandrill",
        view=MandrillCombinedWebhookView,
        proofs=(("MANDRILL_WEBHOOK_KEY", signatures.mandrill),),
        divide=_of_mandrill,
        what=lambda raw: raw["event"],
        read=_read_mandrill,
    ),
    "postal": Esp(
        name="Postal",
        view=PostalTrackingWebhookView,
        proofs=(("POSTAL_WEBHOOK_KEY", signatures.postal),),
        divide=_one_or_more,
        what=lambda raw: raw["event"],
        read=_read_postal,
    ),
    "postmark": Esp(
        name="Postmark",
        view=PostmarkTrackingWebhookView,
        proofs=_BASIC,
        divide=_one_or_more,
        what=lambda raw: raw["RecordType"],
    ),
    "resend": Esp(
        name="Resend",
        view=ResendTrackingWebhookView,
        proofs=(("RESEND_SIGNING_SECRET", signatures.svix), *_BASIC),
        divide=_one_or_more,
        what=lambda raw: raw["type"],
        read=_read_resend,
    ),
    "sendgrid": Esp(
        name="SendGrid",
        view=SendGridTrackingWebhookView,
        proofs=(("SENDGRID_TRACKING_WEBHOOK_VERIFICATION_KEY", signatures.sendgrid), *_BASIC),
        divide=_one_or_more,
        what=lambda raw: raw["event"],
    ),
    "sparkpost": Esp(
        name="SparkPost",
        view=SparkPostTrackingWebhookView,
        proofs=_BASIC,
        divide=_of_sparkpost,
        what=lambda raw: next(iter(raw["msys"].values()))["type"],
        read=_read_sparkpost,
    ),
    "unisender_go": Esp(
        name="Unisender Go",
        view=UnisenderGoTrackingWebhookView,
        proofs=(("UNISENDER_GO_API_KEY", signatures.unisender_go),),
        divide=_of_unisender,
        what=lambda raw: raw["status"],
    ),
}
