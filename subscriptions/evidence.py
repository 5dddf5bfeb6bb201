"""The evidence for one address, as a document that a court, an authority or the reader can check without us (R-11).

It is German whatever the language of the desk, because it is read where German law is applied. Page, PDF and JSON are
made from the same `Evidence`.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.utils import timezone
from django.utils.translation import override

from subscriptions import ledger, suppression, telling
from subscriptions.models import ConsentPayload, ConsentSeal, EvidenceView

SCHEMA = "newsroom-evidence/1"
ACTS = {
    "requested": "Anmeldung abgeschickt",
    "mail_sent": "Bestätigungsmail gesendet",
    "confirmed": "Anmeldung bestätigt",
    "added": "Newsletter hinzugefügt",
    "changed": "Geändert",
    "address_changed": "Adresse geändert",
    "withdrawn": "Einwilligung widerrufen",
    "erased": "Daten gelöscht",
}
FREQUENCIES = {"daily": "täglich", "weekdays": "montags bis freitags", "weekly": "einmal in der Woche"}
FACTS = {
    "address": "Adresse",
    "address_typed": "Adresse, wie getippt",
    "actor": "Handelnd",
    "source": "Weg",
    "received_on": "Eingegangen am",
    "page": "Seite",
    "language": "Sprache",
    "form_version": "Fassung des Formulars",
    "privacy_notice_version": "Fassung der Datenschutzerklärung",
    "sign_up": "Gehört zur Anmeldung",
    "requested_at": "Angemeldet (UTC)",
    "confirmation_token_sha256": "SHA-256 des Bestätigungslinks",
    "mail_subject": "Betreff",
    "message_id": "Message-ID",
    "provider_message_id": "Kennung beim Versender",
    "change": "Änderung",
    "address_before": "Bisherige Adresse",
    "address_change": "Kennung der Adressänderung",
    "absorbed": "Vereint mit",
    "continued_in": "Fortgesetzt in Eintrag",
}
SHOWN_APART = {"declaration", "newsletters", "text", "ip", ledger.CARRIED}
PROVES = (
    "Dieses Dokument belegt, dass über ein Formular dieser Website oder auf dem genannten Weg die aufgeführten"
    " Handlungen zu den genannten Zeiten vorgenommen wurden, mit welchem Wortlaut das Formular die Einwilligung"
    " erklärte und welche Bestätigungsmail versandt wurde. Eine Bestätigung setzt voraus, dass jemand den Link aus"
    " dieser Mail geöffnet und dort die Schaltfläche gedrückt hat: Er hatte also Zugang zu dem Postfach.",
    "Es belegt nicht, welcher Mensch das Postfach benutzte. Eine IP-Adresse bezeichnet einen Anschluss und stützt"
    " die übrigen Angaben nur. Die Zeiten sind die der Uhr unseres Servers. Die Kette der Siegel zeigt jede spätere"
    " Änderung; gegen jemanden, der die ganze Datenbank neu schreibt, schützt sie nur, soweit ein Siegel schon vorher"
    " außerhalb notiert war (so etwa in der täglichen Mail an die Datenschutzbeauftragten).",
)
HOW_TO_CHECK = (
    "Zu jeder Handlung enthält die JSON-Datei unter „salt“ eine Zufallszahl und unter „committed“ einen Text. Man"
    " schreibt beide ohne Zwischenraum hintereinander (zuerst die Zufallszahl, in UTF-8) und berechnet SHA-256; das"
    " Ergebnis muss die bei der Handlung genannte Prüfsumme sein.",
    "Die JSON-Datei enthält unter „seals“ jedes beteiligte Siegel als Text („sealed“). Sein SHA-256 muss der genannte"
    " Hash des Siegels sein. In dem Text stehen die Nummer des Siegels, der Hash des vorigen Siegels, die Liste der"
    " besiegelten Einträge mit ihren Prüfsummen und die Zeit. Die Prüfsumme der Handlung muss in der Liste stehen.",
    "Weil jedes Siegel den Hash des vorigen enthält, legt ein außerhalb notiertes Siegel alle früheren fest. Ob ein"
    " notiertes Siegel noch in der Kette steht, prüft der Betreiber mit „manage.py audit --anchor NUMMER:HASH“.",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One act, with what a third person needs to recompute its commitment."""

    facts: dict[str, Any]
    body: dict[str, Any]
    salt: str
    committed: str
    seal: ConsentSeal | None


@dataclass(frozen=True, slots=True)
class Evidence:
    address: str
    made_at: datetime
    entries: tuple[Entry, ...]
    broken: tuple[str, ...]
    head: ConsentSeal | None

    @property
    def seals(self) -> list[ConsentSeal]:
        found = {entry.seal.number: entry.seal for entry in self.entries if entry.seal}
        return [found[number] for number in sorted(found)]


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of the document: a heading, a paragraph, a text quoted as it was, or rows of name and value."""

    kind: str
    text: str = ""
    rows: tuple[tuple[str, str], ...] = ()


def collect(address: str, address_key: str, *, now: datetime) -> Evidence:
    """Gather everything on record about an address, oldest first, and verify the whole ledger."""
    entries = tuple(_entry(payload) for payload in ledger.payloads(address_key))
    return Evidence(address, now, entries, tuple(ledger.verify()), ledger.head())


def note_view(address_key: str, *, actor: str, way: EvidenceView.Way, now: datetime) -> EvidenceView:
    """Write down who looks at whose evidence; before it is shown, so that no view is without trace."""
    return EvidenceView.objects.create(
        address_hash=suppression.address_hash(address_key), actor=actor, way=way, viewed_at=now
    )


def as_json(evidence: Evidence) -> str:
    head = evidence.head
    document = {
        "schema": SCHEMA,
        "address": evidence.address,
        "made_at": _utc(evidence.made_at),
        "proves": list(PROVES),
        "how_to_check": list(HOW_TO_CHECK),
        "ledger_is_whole": not evidence.broken,
        "broken": list(evidence.broken),
        "head": _seal_json(head) if head else None,
        "acts": [_entry_json(entry) for entry in evidence.entries],
        "seals": [{**_seal_json(seal), "sealed": ledger.sealed_text(seal)} for seal in evidence.seals],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def blocks(evidence: Evidence) -> list[Block]:
    """Return the document in the order in which it is read."""
    with override("de"):
        return [
            Block("title", f"Nachweis der Einwilligung für {evidence.address}"),
            Block("rows", rows=tuple(_summary(evidence))),
            *_findings(evidence),
            Block("heading", "Was dieses Dokument belegt"),
            *(Block("paragraph", text) for text in PROVES),
            *_acts(evidence),
            Block("heading", "Siegel"),
            *(Block("rows", rows=tuple(_seal_rows(seal))) for seal in evidence.seals),
            Block("heading", "Wie sich der Nachweis nachrechnen lässt"),
            *(Block("paragraph", text) for text in HOW_TO_CHECK),
        ]


def _entry(payload: ConsentPayload) -> Entry:
    proof = payload.record
    sealed = getattr(proof, "sealed", None)
    facts = {
        "record": str(proof.uuid),
        "act": str(proof.type),
        "at": proof.at,
        "subject": str(proof.subject),
        "commitment": proof.commitment,
        "number": proof.pk,
    }
    body, committed = ledger.without_luggage(payload.body), ledger.committed_text(payload)
    return Entry(facts, body, payload.salt, committed, sealed.seal if sealed else None)


def _entry_json(entry: Entry) -> dict[str, Any]:
    proof = {"salt": entry.salt, "committed": entry.committed, "seal": entry.seal.number if entry.seal else None}
    return {**entry.facts, "at": _utc(entry.facts["at"]), **entry.body, "proof": proof}


def _seal_json(seal: ConsentSeal) -> dict[str, Any]:
    return {"number": seal.number, "hash": seal.hash, "sealed_at": _utc(seal.sealed_at)}


def _summary(evidence: Evidence) -> Iterator[tuple[str, str]]:
    yield "Adresse", evidence.address
    yield "Aussteller", f"{settings.PUBLISHER['name']}, {settings.PUBLISHER['street']}, {settings.PUBLISHER['city']}"
    yield "Erstellt", _both_times(evidence.made_at)
    yield "Einträge", str(len(evidence.entries))
    if evidence.head:
        yield "Neuestes Siegel", f"Nr. {evidence.head.number}, {evidence.head.hash}"


def _findings(evidence: Evidence) -> Iterator[Block]:
    if evidence.broken:
        yield Block("heading", "Das Register ist nicht unversehrt")
        yield from (Block("paragraph", sentence) for sentence in evidence.broken)
    else:
        yield Block(
            "paragraph",
            "Das Register wurde bei der Erstellung geprüft: Jeder Eintrag lautet, wie er geschrieben wurde, und kein"
            " besiegelter fehlt.",
        )


def _acts(evidence: Evidence) -> Iterator[Block]:
    if not evidence.entries:
        yield Block("paragraph", "Zu dieser Adresse ist nichts verzeichnet.")
    for position, entry in enumerate(evidence.entries, start=1):
        yield Block("heading", f"{position}. {ACTS.get(entry.facts['act'], entry.facts['act'])}")
        yield Block("rows", rows=tuple(_act_rows(entry)))
        yield from _words(entry.body)


def _act_rows(entry: Entry) -> Iterator[tuple[str, str]]:
    yield "Zeit", _both_times(entry.facts["at"])
    if "ip" in entry.body:
        yield "IP-Adresse", f"{entry.body['ip']}" if entry.body["ip"] else "nicht gespeichert"
    for name, value in entry.body.items():
        if name not in SHOWN_APART and value:
            yield FACTS.get(name, name), _fact(name, value)
    yield "Eintrag", f"Nr. {entry.facts['number']}, {entry.facts['record']}"
    yield "Gehört zu", entry.facts["subject"]
    yield "Prüfsumme", entry.facts["commitment"]
    yield "Zufallszahl", entry.salt
    yield "Siegel", f"Nr. {entry.seal.number}" if entry.seal else "noch nicht besiegelt"


def _fact(name: str, value: Any) -> str:
    if name == "source" and value in telling.WAYS:
        return f"{telling.way(value)} ({value})"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _words(body: dict[str, Any]) -> Iterator[Block]:
    """What the form or the mail said, letter for letter."""
    for newsletter in body.get("newsletters", []):
        frequency = FREQUENCIES.get(newsletter["frequency"], newsletter["frequency"])
        yield Block("paragraph", f"Newsletter „{newsletter['name']}“, {frequency}{_version(newsletter)}")
        if "wording" in newsletter:
            yield Block("quote", newsletter["wording"])
    if declaration := body.get("declaration"):
        yield Block("paragraph", f"Erklärung an der Schaltfläche{_version(declaration)}")
        yield Block("quote", declaration["wording"])
    if text := body.get("text"):
        yield Block("paragraph", "Die Mail im Wortlaut; an der Stelle des Bestätigungslinks steht dessen SHA-256:")
        yield Block("quote", text)


def _version(text: dict[str, Any]) -> str:
    return f" (Wortlaut in Fassung {text['version']}, Sprache {text['language']}):" if "version" in text else ""


def _seal_rows(seal: ConsentSeal) -> Iterator[tuple[str, str]]:
    yield "Siegel", f"Nr. {seal.number}, {len(seal.entries)} Einträge"
    yield "Zeit", _both_times(seal.sealed_at)
    yield "Hash des vorigen", seal.previous_hash
    yield "Hash", seal.hash


def _utc(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")


def _both_times(at: datetime) -> str:
    local = timezone.localtime(at)
    return f"{at.astimezone(UTC):%d.%m.%Y, %H:%M:%S} UTC ({local:%d.%m.%Y, %H:%M:%S} {local:%Z})"
