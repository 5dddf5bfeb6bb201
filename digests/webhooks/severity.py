"""What a provider's words mean for a reader. Anymail calls most of what comes back "bounced"; the raw report says more.

Four things are told apart, for they have different consequences: an address that does not exist (`HARD_BOUNCE`), a
mailbox that does not take this mail now (`SOFT_BOUNCE`), an address that the provider itself keeps from being mailed
(`SUPPRESSED`), and mail refused for its sender's or its content's sake (`BLOCKED`), of which no reader is to blame.
"""

import re
from collections.abc import Callable
from typing import Any

from anymail.signals import EventType

from digests.models import ProviderEvent

Raw = dict[str, Any]
Kind = ProviderEvent.Kind

# RFC 3463, within a longer text or by itself; not a part of an IP address.
_CODE = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?!\.?\d)")
# Codes after which the address is surely dead (E-45), by their last two parts.
_DEAD = {"1.1", "1.2", "1.3", "1.6", "1.10", "2.1"}
_FULL = {"2.2", "2.3"}
# Content, size and policy: a matter between the receiving server and us.
_OURS = re.compile(r"[45]\.(?:6\.\d+|7\.\d+|3\.4|1\.[78])")


def of_code(code: str) -> ProviderEvent.Kind:
    """Return what an enhanced status code of a failure means by itself."""
    if _OURS.fullmatch(code):
        return Kind.BLOCKED
    return Kind.HARD_BOUNCE if code.startswith("5.") and code[2:] in _DEAD else Kind.SOFT_BOUNCE


def code_in(*texts: Any) -> str:
    """Return the first status code of a failure in these texts; a raw report is looked through at the usual places."""
    for text in texts:
        candidates = (
            [text.get(name) for name in ("status", "Details", "raw_reason")] if isinstance(text, dict) else [text]
        )
        for candidate in candidates:
            if isinstance(candidate, str) and (match := _CODE.search(candidate[:2000])):
                return match[1]
    return ""


def kind_of(slug: str, raw: Raw, event_type: str, *, code: str) -> ProviderEvent.Kind:
    """Return what happened. The raw report decides; a status code of the receiving server corrects a hard bounce."""
    try:
        kind = _OF_RAW[slug](raw) or _OF_TYPE.get(event_type, Kind.OTHER)
    except (KeyError, TypeError, AttributeError, StopIteration):
        kind = _OF_TYPE.get(event_type, Kind.OTHER)
    if kind == Kind.HARD_BOUNCE and code and (code[2:] in _FULL or of_code(code) == Kind.BLOCKED):
        return Kind.SOFT_BOUNCE if code[2:] in _FULL else Kind.BLOCKED
    return kind


# What Anymail's words mean where the raw report adds nothing.
_OF_TYPE = {
    EventType.QUEUED: Kind.ACCEPTED,
    EventType.SENT: Kind.ACCEPTED,
    EventType.DEFERRED: Kind.ACCEPTED,
    EventType.AUTORESPONDED: Kind.ACCEPTED,
    EventType.DELIVERED: Kind.DELIVERED,
    EventType.REJECTED: Kind.SUPPRESSED,
    EventType.FAILED: Kind.BLOCKED,
    EventType.BOUNCED: Kind.SOFT_BOUNCE,
    EventType.COMPLAINED: Kind.COMPLAINT,
    EventType.UNSUBSCRIBED: Kind.UNSUBSCRIBE,
}


def _amazon_ses(raw: Raw) -> ProviderEvent.Kind | None:
    event = raw["event"]
    match event.get("eventType") or event.get("notificationType"):
        case "Bounce":
            return _of_amazons_bounce(event["bounce"]["bounceType"], event["bounce"].get("bounceSubType"))
        case "Complaint":
            return _of_amazons_complaint(event["complaint"])
        case "DeliveryDelay":
            return Kind.ACCEPTED
        case "Subscription":
            return Kind.UNSUBSCRIBE
        case "Reject":
            return Kind.BLOCKED  # a virus in it
    return None


def _of_amazons_bounce(kind: str, detail: str | None) -> ProviderEvent.Kind:
    """Amazon's words, which Resend passes on."""
    if detail in {"Suppressed", "OnAccountSuppressionList", "UnsubscribedRecipient", "OnTenantSuppressionList"}:
        return Kind.SUPPRESSED
    if detail in {"MessageTooLarge", "ContentRejected", "AttachmentRejected"}:
        return Kind.BLOCKED
    return Kind.HARD_BOUNCE if kind == "Permanent" and detail != "MailboxFull" else Kind.SOFT_BOUNCE


def _of_amazons_complaint(complaint: Raw) -> ProviderEvent.Kind:
    if complaint.get("complaintFeedbackType") == "not-spam":
        return Kind.OTHER
    return Kind.SUPPRESSED if complaint.get("complaintSubType") == "OnAccountSuppressionList" else Kind.COMPLAINT


def _brevo(raw: Raw) -> ProviderEvent.Kind | None:
    return {
        "hard_bounce": Kind.HARD_BOUNCE,
        "invalid_email": Kind.HARD_BOUNCE,
        "soft_bounce": Kind.SOFT_BOUNCE,
        "blocked": Kind.SUPPRESSED,
        "error": Kind.BLOCKED,
    }.get(raw["event"])


def _mailersend(raw: Raw) -> ProviderEvent.Kind | None:
    return {"hard_bounced": Kind.HARD_BOUNCE, "soft_bounced": Kind.SOFT_BOUNCE}.get(raw["data"]["type"])


def _mailgun(raw: Raw) -> ProviderEvent.Kind | None:
    event = raw["event-data"]
    if event["event"] == "rejected":
        return Kind.BLOCKED
    if event["event"] != "failed" or event.get("severity") != "permanent":
        return None
    reason = str(event.get("reason", ""))
    if reason.startswith("suppress-"):
        return Kind.SUPPRESSED
    return {"bounce": Kind.HARD_BOUNCE, "espblock": Kind.BLOCKED}.get(reason, Kind.SOFT_BOUNCE)


def _mailjet(raw: Raw) -> ProviderEvent.Kind | None:
    error = raw.get("error")
    if raw["event"] not in {"bounce", "blocked"} or (error == "greylisted" and not raw.get("hard_bounce")):
        return None
    if raw.get("error_related_to") in {"spam", "mailjet"} and error != "preblocked":
        return Kind.BLOCKED
    if raw["event"] == "blocked":
        return Kind.SUPPRESSED
    return Kind.HARD_BOUNCE if raw.get("hard_bounce") and error != "quota exceeded" else Kind.SOFT_BOUNCE


def _mailtrap(raw: Raw) -> ProviderEvent.Kind | None:
    if raw.get("bounce_category") == "spam":
        return Kind.BLOCKED
    return {
        "bounce": Kind.HARD_BOUNCE,
        "soft bounce": Kind.SOFT_BOUNCE,
        "suspension": Kind.BLOCKED,
    }.get(raw["event"])


def _mandrill(raw: Raw) -> ProviderEvent.Kind | None:
    if raw.get("event") == "reject":
        about_reader = {"hard-bounce", "soft-bounce", "spam", "unsub", "custom", "invalid"}
        reason = raw.get("reject") or raw["msg"].get("reject") or {}
        return Kind.SUPPRESSED if reason.get("reason") in about_reader else Kind.BLOCKED
    return {"hard_bounce": Kind.HARD_BOUNCE, "soft_bounce": Kind.SOFT_BOUNCE}.get(raw["event"])


def _postal(raw: Raw) -> ProviderEvent.Kind | None:
    return {"HardFail": Kind.HARD_BOUNCE, "SoftFail": Kind.ACCEPTED}.get(raw["payload"].get("status"))


def _postmark(raw: Raw) -> ProviderEvent.Kind | None:
    match raw["RecordType"]:
        case "Bounce":
            return _of_postmarks_bounce(raw["Type"])
        case "SubscriptionChange":
            return _of_postmarks_list(raw)
    return None


def _of_postmarks_bounce(kind: str) -> ProviderEvent.Kind | None:
    return {
        "HardBounce": Kind.HARD_BOUNCE,
        "BadEmailAddress": Kind.HARD_BOUNCE,
        "SoftBounce": Kind.SOFT_BOUNCE,
        "Unknown": Kind.SOFT_BOUNCE,
        "ManuallyDeactivated": Kind.SUPPRESSED,
        # A filter called it spam, not the reader; `SpamComplaint` is the reader's.
        "SpamNotification": Kind.BLOCKED,
        "Blocked": Kind.BLOCKED,
        "DMARCPolicy": Kind.BLOCKED,
        "VirusNotification": Kind.BLOCKED,
        "Unconfirmed": Kind.BLOCKED,
    }.get(kind)


def _of_postmarks_list(raw: Raw) -> ProviderEvent.Kind:
    """Postmark's list of suppressions changed; bounces and complaints are reported on their own as well."""
    if not raw.get("SuppressSending"):
        return Kind.OTHER
    is_readers_own = raw.get("SuppressionReason") == "ManualSuppression" and raw.get("Origin") == "Recipient"
    return Kind.UNSUBSCRIBE if is_readers_own else Kind.OTHER


def _resend(raw: Raw) -> ProviderEvent.Kind | None:
    if raw["type"] == "email.bounced":
        bounce = raw["data"].get("bounce") or {}
        if "suppressed sending" in str(bounce.get("message")):
            return Kind.SUPPRESSED
        return _of_amazons_bounce(bounce.get("type", ""), bounce.get("subType"))
    return {"email.suppressed": Kind.SUPPRESSED, "email.failed": Kind.BLOCKED}.get(raw["type"])


def _sendgrid(raw: Raw) -> ProviderEvent.Kind | None:
    if raw["event"] == "bounce":
        kinds = {"blocked": Kind.BLOCKED, "expired": Kind.SOFT_BOUNCE}
        return kinds.get(raw.get("type", ""), Kind.HARD_BOUNCE)
    if raw["event"] == "dropped":
        about_reader = ("bounced address", "unsubscribed address", "spam reporting address", "invalid")
        reason = str(raw.get("reason", "")).lower()
        return Kind.SUPPRESSED if reason.startswith(about_reader) else Kind.BLOCKED
    return None


_OF_SPARKPOSTS_CLASS = {
    **dict.fromkeys(("10", "30"), Kind.HARD_BOUNCE),
    # 51 and 52 are a filter's opinion of the mail, which Anymail calls spam, not a reader's complaint.
    **dict.fromkeys(("23", "25", "50", "51", "52", "53", "54"), Kind.BLOCKED),
    **dict.fromkeys(("60", "100"), Kind.ACCEPTED),
    "80": Kind.OTHER,
    "90": Kind.UNSUBSCRIBE,
}


def _sparkpost(raw: Raw) -> ProviderEvent.Kind | None:
    event = next(iter(raw["msys"].values()))
    if event["type"] == "policy_rejection":
        return Kind.SUPPRESSED if "suppress" in str(event.get("raw_reason")).lower() else Kind.BLOCKED
    if event["type"] not in {"bounce", "out_of_band"}:
        return None
    return _OF_SPARKPOSTS_CLASS.get(str(event.get("bounce_class")), Kind.SOFT_BOUNCE)


_OF_UNISENDERS_STATUS = {
    **dict.fromkeys(("err_user_unknown", "err_user_inactive", "err_domain_inactive"), Kind.HARD_BOUNCE),
    **dict.fromkeys(("err_spam_rejected", "err_spam_skipped", "err_blacklisted", "err_too_large"), Kind.BLOCKED),
    "err_unsubscribed": Kind.SUPPRESSED,
    "err_skip_letter": Kind.SUPPRESSED,
    "err_will_retry": Kind.ACCEPTED,
}


def _unisender_go(raw: Raw) -> ProviderEvent.Kind | None:
    if raw["status"] not in {"hard_bounced", "soft_bounced"}:
        return None
    detail = (raw.get("delivery_info") or {}).get("delivery_status")
    return _OF_UNISENDERS_STATUS.get(str(detail), Kind.SOFT_BOUNCE)


_OF_RAW: dict[str, Callable[[Raw], ProviderEvent.Kind | None]] = {
    "amazon_ses": _amazon_ses,
    "brevo": _brevo,
    "mailersend": _mailersend,
    "mailgun": _mailgun,
    "mailjet": _mailjet,
    "mailtrap": _mailtrap,
    "mandrill": _mandrill,
    "postal": _postal,
    "postmark": _postmark,
    "resend": _resend,
    "sendgrid": _sendgrid,
    "sparkpost": _sparkpost,
    "unisender_go": _unisender_go,
}
