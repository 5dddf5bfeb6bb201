"""What subscriptions holds about a reader, in words (see `newsroom.persons.words`)."""

from urllib.parse import urlsplit

from django.conf import settings
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from newsroom.mail.models import OutboxMail
from newsroom.persons.words import (
    Labels,
    Passage,
    Quote,
    Row,
    Text,
    Words,
    choice,
    day,
    facts,
    listing,
    moment,
    passages,
    text,
)
from newsroom.retention import period_of
from subscriptions.models import (
    AddressChange,
    ConsentRecord,
    EvidenceView,
    Newsletter,
    PrivacyRequest,
    RightsCase,
    Subscription,
    Suppression,
)

CONSENT = gettext_lazy("your consent (GDPR Art. 6(1)(a))")
PROOF = gettext_lazy(
    "our duty to prove it and to defend ourselves against claims (GDPR Art. 6(1)(c) and (f), Art. 7(1))"
)
RIGHTS = gettext_lazy("our duty to answer for how we honour your rights (GDPR Art. 6(1)(c), Art. 5(2))")

# On which way something came to us; what is missing here is told as “in another way”.
WAYS: dict[str, Text] = {
    "form": gettext_lazy("the sign-up form"),
    "address_link": gettext_lazy("the button behind the link in the mail about your new address"),
    "confirmation_link": gettext_lazy("the button behind the link in the confirmation mail"),
    "one_click": gettext_lazy("the unsubscribe button of the mail program"),
    "unsubscribe_page": gettext_lazy("the unsubscribe link in an issue"),
    "preferences_link": gettext_lazy("the settings link in an issue"),
    "rights_page": gettext_lazy("the page “My data”"),
    "end_of_pause": gettext_lazy("the end of the pause"),
    "replayed erasure": gettext_lazy("an erasure carried out again after a backup was restored"),
    "letter": gettext_lazy("a letter"),
    "call": gettext_lazy("a call"),
    "mail": gettext_lazy("a message by e-mail"),
    "fax": gettext_lazy("a fax"),
    "webhook": gettext_lazy("a report of the mail provider"),
    "bounce_mail": gettext_lazy("a mail that came back"),
    "soft_bounces": gettext_lazy("several mails that came back"),
}
ACTORS: dict[str, Text] = {
    "reader": gettext_lazy("you, or someone who could read your mailbox"),
    "staff": gettext_lazy("our staff, on your behalf"),
    "system": gettext_lazy("our system, by itself"),
    "newsroom": gettext_lazy("our system, by itself"),
    "provider": gettext_lazy("our mail provider"),
}
CHANGES: dict[str, Text] = {
    "paused": gettext_lazy("newsletter paused"),
    "resumed": gettext_lazy("pause ended"),
    "restricted": gettext_lazy("processing restricted"),
    "restriction lifted": gettext_lazy("restriction lifted"),
    "address change requested": gettext_lazy("another address asked for"),
    "objected": gettext_lazy("objection to the processing"),
}
STANDINGS: dict[str, Text] = {
    Subscription.State.ACTIVE: gettext_lazy("ordered"),
    Subscription.State.PAUSED: gettext_lazy("resting until a day you chose"),
    Subscription.State.ENDED: gettext_lazy("unsubscribed"),
}
LANGUAGES: dict[str, Text] = {"de": gettext_lazy("German"), "en": gettext_lazy("English")}
KINDS: dict[str, Text] = {
    "sign_up": gettext_lazy("mail about a sign-up"),
    "rights_link": gettext_lazy("mail with the link to your data"),
    "address_change": gettext_lazy("mail that asks whether we may write to the new address"),
    "address_changed": gettext_lazy("mail that tells the old address of its change"),
}


def act_title(act: str) -> str:
    """Return what a consent record is called."""
    return choice(ConsentRecord.Type)(act)


def way(source: str) -> str:
    return capfirst(str(WAYS.get(source, _("another way"))))


def page(url: str) -> str:
    """Tell a page of ours by its path, as short as it can be found by."""
    return urlsplit(url).path or url


def actor(name: str) -> str:
    """Tell who acted by what they are to us: which of our staff it was is their own data (EuGH C-579/21)."""
    return capfirst(str(ACTORS.get(name.partition(":")[0], _("others"))))


def newsletters(named: list[Row]) -> str:
    return ", ".join(f"{each['name']} ({_frequency(each)})" for each in named)


def wordings(body: Row) -> tuple[Quote, ...]:
    """Return the exact words someone agreed to, as the form or page showed them."""
    quotes = [
        Quote(_("What the form said about “%(name)s”:") % {"name": each["name"]}, each["wording"])
        for each in body.get("newsletters", [])
        if "wording" in each
    ]
    if declaration := body.get("declaration"):
        quotes.append(Quote(_("The declaration beside the button:"), declaration["wording"]))
    return tuple(quotes)


def _frequency(newsletter: Row) -> str:
    return str(dict(Newsletter.Frequency.choices).get(newsletter["frequency"], newsletter["frequency"]))


def _language(code: str) -> str:
    return capfirst(str(LANGUAGES.get(code, code)))


def _tell_readers(rows: list[Row]) -> list[Passage]:
    told = []
    for row in rows:
        told.append(Passage(facts=facts(row, READER)))
        told += [Passage(title=each["newsletter"], facts=facts(each, SUBSCRIPTION)) for each in row["subscriptions"]]
    return told


def _tell_evidence(rows: list[Row]) -> list[Passage]:
    return [Passage(act_title(row["act"]), facts(_once(row), ACT), (*wordings(row), *_mail(row))) for row in rows]


def _once(row: Row) -> Row:
    """Leave out the address as typed where it is the address itself."""
    return row if row.get("address_typed") != row.get("address") else row | {"address_typed": ""}


def _mail(row: Row) -> tuple[Quote, ...]:
    if "text" not in row:
        return ()
    return (Quote(_("The mail, word for word; the secret part of its link is replaced:"), row["text"]),)


def _kind(code: str) -> str:
    return capfirst(str(KINDS.get(code, _("service mail"))))


def _standing(state: str) -> str:
    return capfirst(str(STANDINGS.get(state, state)))


def _change(change: str) -> str:
    return capfirst(str(CHANGES.get(change, change)))


def _withheld_ip(_is_withheld: bool) -> str:
    return _("not shown: nobody confirmed, so it may be somebody else's")


def _lapsed(_has_lapsed: bool) -> str:
    return _("Nothing came for %(months)d months, so we no longer rely on your consent.") % {
        "months": settings.CONSENT_LAPSE_MONTHS
    }


READER: Labels = {
    "address": (gettext_lazy("Address"), text),
    "language": (gettext_lazy("Language of our mails"), _language),
    "since": (gettext_lazy("With us since"), moment),
    "restricted_since": (gettext_lazy("Processing restricted since"), moment),
}
SUBSCRIPTION: Labels = {
    "state": (gettext_lazy("State"), _standing),
    "active_since": (gettext_lazy("Ordered"), moment),
    "has_lapsed": (gettext_lazy("At rest"), _lapsed),
    "paused_until": (gettext_lazy("Paused until"), day),
    "ended_at": (gettext_lazy("Unsubscribed"), moment),
}
ACT: Labels = {
    "at": (gettext_lazy("Time"), moment),
    "change": (gettext_lazy("What"), _change),
    "newsletter": (gettext_lazy("Newsletter"), lambda named: newsletters([named])),
    "newsletters": (gettext_lazy("Newsletters"), newsletters),
    "until": (gettext_lazy("Until"), day),
    "address": (gettext_lazy("Address"), text),
    "address_before": (gettext_lazy("Old address"), text),
    "address_typed": (gettext_lazy("Address as typed"), text),
    "actor": (gettext_lazy("By"), actor),
    "source": (gettext_lazy("Way"), way),
    "page": (gettext_lazy("Page"), page),
    "ip": (gettext_lazy("IP address"), text),
    "ip_withheld": (gettext_lazy("IP address"), _withheld_ip),
    "mail_subject": (gettext_lazy("Subject"), text),
}
SIGN_UP: Labels = {
    "requested_at": (gettext_lazy("Form sent"), moment),
    "confirmed_at": (gettext_lazy("Confirmed"), moment),
    "newsletters": (gettext_lazy("Newsletters"), listing),
    "address": (gettext_lazy("Address"), text),
    "address_typed": (gettext_lazy("Address as typed"), text),
    "language": (gettext_lazy("Language of our mails"), _language),
    "form": (gettext_lazy("Page"), page),
    "ip": (gettext_lazy("IP address"), text),
    "ip_withheld": (gettext_lazy("IP address"), _withheld_ip),
}

READERS = Words(
    title=gettext_lazy("Your address and your newsletters"),
    why=gettext_lazy("So that we can send you the newsletters you ordered."),
    legal_basis=CONSENT,
    until=period_of("readers"),
    tell=_tell_readers,
)
EVIDENCE = Words(
    title=gettext_lazy("Proof of your consent"),
    why=gettext_lazy(
        "So that we can show at any time what you agreed to, when and in which words, and that you took it back."
    ),
    legal_basis=PROOF,
    until=period_of("evidence"),
    tell=_tell_evidence,
)
EVIDENCE_VIEWS = Words(
    title=gettext_lazy("When this proof was looked at"),
    why=gettext_lazy(
        "So that nobody here looks at it without a trace. The names of our staff are theirs, and not shown."
    ),
    legal_basis=PROOF,
    until=period_of("views_of_evidence"),
    tell=passages({"viewed_at": (gettext_lazy("Time"), moment), "way": (gettext_lazy("As"), choice(EvidenceView.Way))}),
)
SUPPRESSIONS = Words(
    title=gettext_lazy("Entry in the list of addresses that are not mailed"),
    why=gettext_lazy(
        "So that nothing goes to your address that must not. It is a keyed hash; your address is not in it."
    ),
    legal_basis=gettext_lazy("our duty and interest to heed your objection (GDPR Art. 6(1)(c) and (f), Art. 21(3))"),
    until=period_of("suppressions"),
    tell=passages(
        {"reason": (gettext_lazy("Reason"), choice(Suppression.Reason)), "since": (gettext_lazy("Since"), moment)}
    ),
)
PRIVACY_REQUESTS = Words(
    title=gettext_lazy("Your requests for the link to “My data”"),
    why=gettext_lazy("So that the link works once only, and that we can show we answered."),
    legal_basis=RIGHTS,
    until=period_of("privacy_requests"),
    tell=passages(
        {
            "requested_at": (gettext_lazy("Requested"), moment),
            "address": (gettext_lazy("Address"), text),
            "state": (gettext_lazy("State"), choice(PrivacyRequest.State)),
            "link_mailed_at": (gettext_lazy("Link mailed"), moment),
            "link_used_at": (gettext_lazy("Link used"), moment),
        }
    ),
)
ADDRESS_CHANGES = Words(
    title=gettext_lazy("Changes of your address"),
    why=gettext_lazy("So that we write to you where you want us to, and can tell how that came about."),
    legal_basis=RIGHTS,
    until=period_of("address_changes"),
    tell=passages(
        {
            "old_address": (gettext_lazy("Old address"), text),
            "new_address": (gettext_lazy("New address"), text),
            "state": (gettext_lazy("State"), choice(AddressChange.State)),
            "requested_at": (gettext_lazy("Requested"), moment),
            "confirmed_at": (gettext_lazy("Confirmed"), moment),
        }
    ),
)
CASES = Words(
    title=gettext_lazy("What you asked of us"),
    why=gettext_lazy("So that we answer in time, and can show that we did."),
    legal_basis=RIGHTS,
    until=period_of("rights_cases"),
    tell=passages(
        {
            "number": (gettext_lazy("Number"), text),
            "kind": (gettext_lazy("What"), choice(RightsCase.Kind)),
            "way": (gettext_lazy("Way"), choice(RightsCase.Way)),
            "received_on": (gettext_lazy("Received"), day),
            "due_on": (gettext_lazy("To be answered by"), day),
            "newsletters": (gettext_lazy("Newsletters"), listing),
            "address": (gettext_lazy("Address"), text),
            "new_address": (gettext_lazy("New address"), text),
            "extended_at": (gettext_lazy("Deadline extended"), moment),
            "extension_reason": (gettext_lazy("Why it takes longer"), text),
            "state": (gettext_lazy("State"), choice(RightsCase.State)),
            "answered_at": (gettext_lazy("Answered"), moment),
            "outcome": (gettext_lazy("What we did, or why not"), text),
            "internal_note": (gettext_lazy("Note of our staff"), text),
        }
    ),
)
SIGN_UPS = Words(
    title=gettext_lazy("Forms sent with your address"),
    why=gettext_lazy("So that we can ask for your confirmation, and nobody can order for you."),
    legal_basis=gettext_lazy("your consent, and our interest in checking it (GDPR Art. 6(1)(a) and (f))"),
    until=period_of("sign_ups"),
    tell=lambda rows: [
        Passage(
            facts=facts(_once(row), SIGN_UP),
            quotes=tuple(Quote(_("What the form said:"), wording) for wording in row["consent_texts"]),
        )
        for row in rows
    ],
)
SERVICE_MAILS = Words(
    title=gettext_lazy("Service mails to you"),
    why=gettext_lazy("So that each goes out once, and not again."),
    legal_basis=gettext_lazy("our interest in a working confirmation (GDPR Art. 6(1)(f))"),
    until=period_of("service_mails"),
    tell=passages(
        {
            "kind": (gettext_lazy("What"), _kind),
            "created_at": (gettext_lazy("Caused"), moment),
            "state": (gettext_lazy("State"), choice(OutboxMail.State)),
            "sent_at": (gettext_lazy("Sent"), moment),
        }
    ),
)
