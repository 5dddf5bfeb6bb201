"""Logs carry ids. What slips through all the same, an address or a token in a path, is masked here."""

import logging
import re

_ADDRESS = re.compile(r"[^\s<>\"'(),:;/\\]+@[\w.-]+\.\w+")
# Wherever else one may stand; all have 43 characters or more, with capitals, which ids and slugs do not have.
_TOKEN = re.compile(r"(?<![\w-])(?=[a-z\d_-]*[A-Z])[\w-]{43,}(?![\w-])")
_TOKEN_PATH = re.compile(
    r"(/(?:newsletter/(?:bestaetigen|abmelden|einstellungen|warum)|meine-daten(?:/adresse)?)/)[\w-]{16,}"
)


def mask(text: str) -> str:
    """Replace e-mail addresses and the tokens of reader links."""
    return _TOKEN.sub("…", _TOKEN_PATH.sub(r"\1…", _ADDRESS.sub("…@…", text)))


class MaskingFormatter(logging.Formatter):
    """Formats a record, exception text included, and masks the whole line."""

    def format(self, record: logging.LogRecord) -> str:
        return mask(super().format(record))
