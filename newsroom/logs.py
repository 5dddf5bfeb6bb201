"""Logs carry ids. What slips through all the same, an address or a token in a path, is masked here."""

import logging
import re

_ADDRESS = re.compile(r"[^\s<>\"'(),:;/\\]+@[\w.-]+\.\w+")
_TOKEN_PATH = re.compile(r"(/(?:newsletter/(?:bestaetigen|abmelden|einstellungen)|meine-daten)/)[\w-]{16,}")


def mask(text: str) -> str:
    """Replace e-mail addresses and the tokens of reader links."""
    return _TOKEN_PATH.sub(r"\1…", _ADDRESS.sub("…@…", text))


class MaskingFormatter(logging.Formatter):
    """Formats a record, exception text included, and masks the whole line."""

    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))
