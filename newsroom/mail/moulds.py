"""A message serialised once, for all its readers: what differs between them are slots, and filling them is a join.

Building and writing MIME anew is most of what a mail costs its sender. Here it is done once; the rest are the same
bytes for everyone, cut where a reader's own words belong.
"""

import re
from collections.abc import Iterator, Sequence
from copy import deepcopy
from email import quoprimime
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from hashlib import sha256
from operator import itemgetter
from typing import Any

from django.core.mail import EmailMessage

from newsroom.mail.folding import LONGEST_LINE

# Room that is kept on a slot's line: an address has at most 254 octets (RFC 5321 section 4.5.3.1), our links fewer.
LONGEST_VALUE = 300

_ENCODED_LINE = 76  # RFC 2045 section 6.7, the sign of the soft break included
_VALUE_LINE = _ENCODED_LINE - len("=2E")  # with room for a dot that is encoded, and for the soft break
_LINE_END = re.compile(rb"\r\n|\r|\n")
_SLOT = re.compile(r"[!-<>-~]+")


class Mould:
    """A message in which each slot stands for words that are each reader's own.

    A slot is ASCII, stands in whole header lines or in text and HTML, and is replaced wherever it stands.
    """

    def __init__(self, message: EmailMessage, slots: Sequence[str]) -> None:
        if len(set(slots)) < len(slots) or not all(map(_SLOT.fullmatch, slots)):
            raise ValueError("Slots are distinct ASCII words without the equals sign.")
        self._slots = [slot.encode() for slot in slots]
        self._root: Any = message.message()
        self._count = len(slots)
        self._token = _token_of(self._root)
        # With one more than there are, for `itemgetter` gives no tuple for one.
        self._of_html = itemgetter(*self._find_in_html(), slice(0))
        self._check_headers()
        self._eight_bit = self._make_form(eight_bit=True)
        self._seven_bit: _Form | None = self._eight_bit if self._eight_bit.is_ascii else None

    def cast(self, values: Sequence[str], *, eight_bit: bool) -> bytes:
        """Return one reader's message as SMTP's DATA wants it, the final dot included.

        `values` are printable ASCII, in the slots' order; ValueError says that one is not, or is too long.
        """
        return b"".join(self.fill(self.checked(values), eight_bit, False)[0])

    def checked(self, values: Sequence[str]) -> list[bytes]:
        """Return what `fill` takes; ValueError as with `cast`."""
        self._check(values)
        return list(map(str.encode, values))

    def fill(self, words: Sequence[bytes], eight_bit: bool, is_bare: bool) -> tuple[list[bytes], bool]:
        """Return the same in pieces, for whoever joins more to it, and whether any has eight bits.

        Bare, it lacks the dots that DATA wants.
        """
        form = self._form(eight_bit=eight_bit)
        return form.fill(words, is_bare=is_bare), not form.is_ascii

    def content(self, values: Sequence[str], *, eight_bit: bool) -> bytes:
        """Return the same message as its receiver will read it, and as SMTP's BDAT wants it."""
        return b"".join(self.fill(self.checked(values), eight_bit, True)[0])

    def _check(self, values: Sequence[str]) -> None:
        together = "".join(values)
        if not (together.isascii() and together.isprintable()) or len(values) != self._count:
            raise ValueError("A value for a slot is printable ASCII, one for each slot.")
        # Most often all of them together are shorter than one may be.
        if not all(values) or (len(together) > LONGEST_VALUE and max(map(len, values)) > LONGEST_VALUE):
            raise ValueError("A value for a slot is empty or too long.")
        if _has_markup(together) and _has_markup("".join(map("".join, self._of_html(values)))):
            raise ValueError("A value for a slot in HTML is without quotes, angle brackets and ampersands.")

    def _find_in_html(self) -> list[int]:
        html = b"\0".join(_octets_of(part) for part in _texts(self._root) if part.get_content_subtype() == "html")
        return [number for number, slot in enumerate(self._slots) if slot in html]

    def _form(self, *, eight_bit: bool) -> "_Form":
        if eight_bit:
            return self._eight_bit
        if self._seven_bit is None:
            self._seven_bit = self._make_form(eight_bit=False)
        return self._seven_bit

    def _make_form(self, *, eight_bit: bool) -> "_Form":
        root = deepcopy(self._root)
        marks = [f"=_{self._token}.{number}".encode() for number in range(len(self._slots))]
        for part in _texts(root):
            self._encode(part, marks, eight_bit=eight_bit)
        for number, part in enumerate(each for each in root.walk() if each.is_multipart()):
            part.set_boundary(f"=_{self._token}_{number}")
        return _Form(root.as_bytes(linesep="\r\n"), self._slots, marks)

    def _encode(self, part: Message, marks: Sequence[bytes], *, eight_bit: bool) -> None:
        """Write a part as quoted-printable where it has to be: a slot then stands on an encoded line of its own."""
        octets = _octets_of(part)
        is_plain = part.get("Content-Transfer-Encoding") in {"7bit", "8bit"}
        if is_plain and (eight_bit or octets.isascii()) and not any(map(self._is_too_long, _LINE_END.split(octets))):
            return
        part.replace_header("Content-Transfer-Encoding", "quoted-printable")
        part.set_payload("".join(self._quoted(_LINE_END.sub(b"\n", octets), marks)))

    def _is_too_long(self, line: bytes) -> bool:
        room = sum(line.count(slot) * (LONGEST_VALUE - len(slot)) for slot in self._slots)
        return len(line) + room > LONGEST_LINE

    def _quoted(self, octets: bytes, marks: Sequence[bytes]) -> Iterator[str]:
        pieces = _any_of(self._slots).split(octets)
        for position, piece in enumerate(pieces):
            is_slot, is_last = position % 2 == 1, position == len(pieces) - 1
            if is_slot:
                yield marks[self._slots.index(piece)].decode()
                yield "" if is_last or pieces[position + 1 :] == [b""] else "=\n"
            elif piece:
                # One less, for the last line may be full already when its soft break is added.
                yield quoprimime.body_encode(piece.decode("latin-1"), _ENCODED_LINE - 1)
                yield "" if is_last or piece.endswith(b"\n") else "=\n"

    def _check_headers(self) -> None:
        """See that whoever looks for a slot in a header finds it whole, however long what fills it is."""
        for part in self._root.walk():
            for name, value in part.items():
                found = [slot.decode() for slot in self._slots if slot.decode() in _words_of(str(value))]
                if not found:
                    continue
                line = self._root.policy.fold(name, value)
                is_whole = line == f"{name}: {value}\n" and all(slot in line for slot in found)
                if not is_whole or self._is_too_long(line.encode()):
                    raise ValueError(f"A slot in {name} would be encoded or folded.")


class _Form:
    """The message in one encoding, cut at its slots."""

    def __init__(self, message: bytes, slots: Sequence[bytes], marks: Sequence[bytes]) -> None:
        places = [*slots, *marks]
        pieces = _any_of(places).split(message)
        found = [places.index(piece) for piece in pieces[1::2]]
        if {number % len(slots) for number in found} != set(range(len(slots))):
            raise ValueError("A slot is missing in the message.")
        self.is_ascii = message.isascii()
        self._has_quoted = any(number >= len(slots) for number in found)
        self._begins_line = [
            2 * place + 1
            for place, before in enumerate(pieces[:-1:2])
            if before.endswith(b"\r\n") and found[place] < len(slots)
        ]
        if not pieces[-1].endswith(b"\r\n"):
            pieces[-1] += b"\r\n"
        self._bare = [*pieces, b""]
        self._dotted = [*(piece.replace(b"\r\n.", b"\r\n..") for piece in pieces), b""]
        self._dotted[-2] += b".\r\n"
        # With an empty one more than there are, for `itemgetter` gives no tuple for one.
        self._choose = itemgetter(*found, -1)

    def fill(self, words: Sequence[bytes], *, is_bare: bool) -> list[bytes]:
        quoted = [_quoted_value(word) for word in words] if self._has_quoted else []
        pieces = (self._bare if is_bare else self._dotted).copy()
        pieces[1::2] = self._choose([*words, *quoted, b""])
        for place in () if is_bare else self._begins_line:
            if pieces[place].startswith(b"."):
                pieces[place] = b"." + pieces[place]
        return pieces


def _has_markup(words: str) -> bool:
    return '"' in words or "<" in words or ">" in words or "&" in words


def _quoted_value(value: bytes) -> bytes:
    """Encode what stands alone on its encoded lines, so that no line begins with a dot or ends with a space."""
    rest, lines = value.replace(b"=", b"=3D").replace(b" ", b"=20"), []
    while rest:
        sign = rest.rfind(b"=", _VALUE_LINE - 2, _VALUE_LINE)
        end = sign if sign > 0 else _VALUE_LINE
        line, rest = rest[:end], rest[end:]
        lines.append(b"=2E" + line[1:] if line.startswith(b".") else line)
    return b"=\r\n".join(lines)


def _any_of(words: Sequence[bytes]) -> re.Pattern[bytes]:
    """Find any of the words, the longer one where one begins like another."""
    return re.compile(b"(" + b"|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)) + b")")


def _texts(root: Message) -> Iterator[Message]:
    for part in root.walk():
        if part.get_content_maintype() == "text":
            yield part
        elif part.get_content_maintype() != "multipart":
            raise ValueError("Only text can be cast.")


def _words_of(header: str) -> str:
    """Return a header as it stands and as it is read."""
    try:
        return f"{header} {make_header(decode_header(header))}"
    except (LookupError, ValueError, HeaderParseError):  # what looks like an encoded word and is none
        return header


def _octets_of(part: Message) -> bytes:
    octets = part.get_payload(decode=True)
    assert isinstance(octets, bytes)
    return octets


def _token_of(root: Message) -> str:
    """Return what stands in none of the parts, since it is made of all of them."""
    octets = sha256()
    for part in _texts(root):
        octets.update(_octets_of(part) + b"\0")
    return octets.hexdigest()[:32]
