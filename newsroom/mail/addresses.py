"""One address, one form: what a reader types becomes what we send to, or a sentence that says why not.

The canonical form keeps the case of the local part and holds the domain as an A-label (IDNA 2008; Django's own encoding
is IDNA 2003 and would send straße.de's mail to strasse.de). The key lowers the local part as well: it says whether two
addresses are the same reader. Plus tags and dots stay, they are different mailboxes.
"""

import re
import unicodedata
from dataclasses import dataclass
from email.utils import getaddresses
from functools import lru_cache

import idna
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

MAX_TYPED_LENGTH = 320  # looked at before any regular expression or IDNA table
MAX_LOCAL_LENGTH = 64  # RFC 5321 section 4.5.3.1.1
MAX_LENGTH = 254  # RFC 5321 section 4.5.3.1.3, less the angle brackets

# Invisible marks that come along when an address is copied from a page or a document.
_COPIED_ALONG = "\u200b\u2060\ufeff"
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_PLAIN = re.compile(r"[\w-]+(?:\.[\w-]+)*@[\w-]+(?:\.[\w-]+)*", re.ASCII)
_DOT_ATOM = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
# Scripts that are written together; any other mixture within one label is refused (Unicode TS 39, highly restrictive).
_WRITTEN_TOGETHER = (
    frozenset({"LATIN", "CJK", "HIRAGANA", "KATAKANA"}),
    frozenset({"LATIN", "CJK", "BOPOMOFO"}),
    frozenset({"LATIN", "CJK", "HANGUL"}),
)


class InvalidAddress(ValueError):
    """An address nothing can be sent to. `str()` is a sentence for the reader and never holds the address."""


@dataclass(frozen=True, repr=False)
class Address:
    """An address as typed, as sent to (`canonical`), and as compared (`key`)."""

    typed: str
    canonical: str
    key: str

    @property
    def display(self) -> str:
        """The canonical address with its domain in the reader's own letters."""
        local, _at, domain = self.canonical.rpartition("@")
        return f"{local}@{idna.decode(domain)}"

    @property
    def masked(self) -> str:
        """A form for lists: enough to recognise, too little to use (`m…@e….de`)."""
        return mask(self.canonical)

    def __repr__(self) -> str:
        return f"<Address {self.masked}>"


def mask(address: str) -> str:
    """Return `m…@e….de` for an address in canonical form."""
    local, _at, domain = address.rpartition("@")
    return f"{local[:1]}…@{domain[:1]}….{domain.rpartition('.')[2]}"


def canonicalise(typed: str) -> Address:
    """Return the one form of what was typed, or raise `InvalidAddress` with the sentence to show at the field."""
    if len(typed) > MAX_TYPED_LENGTH:
        raise InvalidAddress(_TOO_LONG)
    typed = typed.strip().strip(_COPIED_ALONG).strip()
    local, domain = _split(typed)
    canonical = f"{_checked_local(local)}@{_a_labels(domain)}"
    if len(canonical) > MAX_LENGTH:
        raise InvalidAddress(_TOO_LONG)
    # Django and Anymail parse recipients with this function; it must see one recipient, and this one. It does in what
    # has but letters, digits, hyphens and underscores between its dots.
    if not _PLAIN.fullmatch(canonical) and getaddresses([canonical]) != [("", canonical)]:
        raise InvalidAddress(_MALFORMED)
    return Address(typed=typed, canonical=canonical, key=canonical.lower())


def _split(typed: str) -> tuple[str, str]:
    if not typed:
        raise InvalidAddress(_EMPTY)
    if "," in typed or ";" in typed:
        raise InvalidAddress(_SEVERAL)
    if " " in typed or not typed.isprintable():  # all other spaces count as not printable, as controls and formats do
        raise InvalidAddress(_SPACES)
    local, at, domain = typed.rpartition("@")
    if not at:
        raise InvalidAddress(_NO_AT)
    return local, domain


def _checked_local(local: str) -> str:
    if not local:
        raise InvalidAddress(_NO_LOCAL)
    if not local.isascii():
        raise InvalidAddress(_NON_ASCII_LOCAL)
    # "=?" begins an encoded word (RFC 2047): mail programs would read another address than the one sent to.
    if not _DOT_ATOM.fullmatch(local) or "=?" in local:
        raise InvalidAddress(_MALFORMED)
    if len(local) > MAX_LOCAL_LENGTH:
        raise InvalidAddress(_TOO_LONG)
    return local


@lru_cache(maxsize=1024)  # most readers have their mailbox at one of few providers
def _a_labels(domain: str) -> str:
    """Return the domain as A-labels, if nothing but upper and lower case had to be changed for it."""
    if not domain:
        raise InvalidAddress(_NO_DOMAIN)
    if domain.startswith("["):
        raise InvalidAddress(_IP_ADDRESS)
    typed = unicodedata.normalize("NFC", domain).lower()
    try:
        encoded = idna.encode(typed, uts46=True, std3_rules=True).decode("ascii")
        decoded = idna.decode(encoded)
    except UnicodeError:  # idna.IDNAError is one; its text would name the domain
        raise InvalidAddress(_BAD_DOMAIN) from None
    if _is_changed_by_more_than_case(typed, encoded, decoded) or any(map(_mixes_scripts, decoded.split("."))):
        raise InvalidAddress(_LOOKALIKE)
    return _with_top_level(encoded)


def _is_changed_by_more_than_case(typed: str, encoded: str, decoded: str) -> bool:
    """Say whether IDNA's mapping touched a label, as with ⓔ or 。; a label may be typed in either of its two forms."""
    labels, a_labels, u_labels = typed.split("."), encoded.split("."), decoded.split(".")
    if len(labels) != len(a_labels):
        return True
    return any(label not in forms for label, *forms in zip(labels, a_labels, u_labels, strict=True))


def _with_top_level(domain: str) -> str:
    *rest, top = domain.split(".")
    if top.isdigit():
        raise InvalidAddress(_IP_ADDRESS)
    if not rest or len(top) < 2:
        raise InvalidAddress(_NO_TOP_LEVEL)
    return domain


def _mixes_scripts(label: str) -> bool:
    scripts = {_script(char) for char in label if unicodedata.category(char).startswith("L")}
    return len(scripts) > 1 and not any(scripts <= together for together in _WRITTEN_TOGETHER)


def _script(char: str) -> str:
    """Return the first word of the letter's name, which is its script in all cases IDNA allows and that matter here."""
    word = re.split(r"[ -]", unicodedata.name(char, "?"), maxsplit=1)[0]
    return "CJK" if word == "IDEOGRAPHIC" else word


_EMPTY: Promise = _("Please enter your e-mail address.")
_NO_AT: Promise = _("The @ sign is missing. An e-mail address looks like this: name@example.com")
_NO_LOCAL: Promise = _("The part before the @ sign is missing. An e-mail address looks like this: name@example.com")
_NO_DOMAIN: Promise = _("The part after the @ sign is missing. An e-mail address looks like this: name@example.com")
_NO_TOP_LEVEL: Promise = _("The part after the @ sign is incomplete: it needs an ending, such as .de or .com.")
_BAD_DOMAIN: Promise = _("The part after the @ sign is not a valid domain. Please check it for typing errors.")
_LOOKALIKE: Promise = _(
    "The part after the @ sign contains characters that look like others. Please type it again by hand."
)
_IP_ADDRESS: Promise = _("After the @ sign we need the name of a domain, such as example.com, not an IP address.")
_SPACES: Promise = _("An e-mail address must not contain spaces or invisible characters.")
_SEVERAL: Promise = _("Please enter a single e-mail address, without commas or semicolons.")
_NON_ASCII_LOCAL: Promise = _(
    "We cannot yet send to addresses with umlauts or accents before the @ sign. Please use another address."
)
_MALFORMED: Promise = _(
    "The part before the @ sign contains characters that we cannot send to, such as quotation marks or brackets,"
    " or a dot in the wrong place."
)
_TOO_LONG: Promise = _("This e-mail address is too long. Please check it for typing errors.")
