"""Header lines as people and programs expect them: nothing is folded that need not be.

Python folds at 78 columns and so begins a long value on its second line (`List-Unsubscribe:` CRLF ` <https…>`). That is
allowed (RFC 5322 section 2.2.3), but not every program that looks for the link unfolds it.
"""

from email.header import Header, decode_header, make_header
from email.message import Message
from email.policy import Compat32
from typing import Any

from django.core.mail import EmailMultiAlternatives

LONGEST_LINE = 998  # RFC 5322 section 2.1.1, without the line's end
ENCODED_LINE = 76  # RFC 2047 section 2


class WholeLines(Compat32):
    """Writes an ASCII value on its name's line, and encodes a subject so that it begins there."""

    def fold(self, name: str, value: Any) -> str:
        text = str(value).replace("\n ", " ") if name.lower() == "subject" else str(value)
        if text.isascii() and "\n" not in text and "=?" not in text and len(name) + 2 + len(text) <= LONGEST_LINE:
            return f"{name}: {text}{self.linesep}"
        if name.lower() == "subject":
            encoded = Header(str(make_header(decode_header(text))), "utf-8", ENCODED_LINE, name)
            return f"{name}: {encoded.encode(linesep=self.linesep)}{self.linesep}"
        return super().fold(name, value)

    def fold_binary(self, name: str, value: Any) -> bytes:
        return self.fold(name, value).encode("ascii", "surrogateescape")


class Mail(EmailMultiAlternatives):
    """A mail whose headers stand on whole lines."""

    def message(self) -> Any:  # type: ignore[override]  # the stubs are a Django ahead
        message: Message = super().message()
        message.policy = WholeLines()
        return message
