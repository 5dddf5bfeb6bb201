"""Keeps the translation catalogues: `update` brings them up to date, `check` says what is missing (see the Makefile).

Source strings are English. The English catalogue repeats them, so that both languages are complete in the same sense.
"""

import gettext
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from babel.messages import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from enmerkar.extract import extract_django

ROOT = Path(__file__).resolve().parent.parent.parent
LOCALES = ("de", "en")
SOURCE_LOCALE = "en"
FOLDERS = ("newsroom", "subscriptions", "digests", "templates")
KEYWORDS: dict[str, Any] = DEFAULT_KEYWORDS | {
    "gettext_lazy": None,
    "gettext_noop": None,
    "ngettext_lazy": (1, 2),
    "pgettext_lazy": ((1, "c"), 2),
    "npgettext_lazy": ((1, "c"), 2, 3),
}
# Django doubles every per cent sign of a template's text before it looks the text up.
LONE_PERCENT = re.compile(r"%(?!\(\w+\)s)")


def main() -> None:
    if sys.argv[1:] == ["update"]:
        update()
    elif sys.argv[1:] == ["check"]:
        problems = [problem for locale in LOCALES for problem in check(locale)]
        sys.exit("\n".join([*problems, "`make messages` brings the catalogues up to date."]) if problems else 0)
    else:
        sys.exit(__doc__)


def update() -> None:
    template = extract()
    for locale in LOCALES:
        catalog = read(locale)
        catalog.update(template, no_fuzzy_matching=True, update_creation_date=False)
        catalog.obsolete.clear()
        if locale == SOURCE_LOCALE:
            repeat_source(catalog)
        write(catalog, locale)
        missing = sum(not is_translated(message) for message in messages(catalog))
        print(f"{locale}: {len(catalog)} messages, {missing} not translated")


def check(locale: str) -> Iterator[str]:
    """Yield a line for everything that keeps this language from being complete."""
    wanted, catalog = extract(), read(locale)
    for message in messages(wanted):
        found = catalog.get(message.id, message.context)
        if found is None:
            yield f"{locale}: not in the catalogue: {message.id!r} ({place(message)})"
        elif not is_translated(found):
            yield f"{locale}: not translated: {message.id!r}"
        elif found.fuzzy:
            yield f"{locale}: fuzzy: {message.id!r}"
        else:
            found.flags |= message.flags
            yield from (f"{locale}: {error} in {message.id!r}" for error in found.check(catalog))
    for message in messages(catalog):
        if wanted.get(message.id, message.context) is None:
            yield f"{locale}: nobody uses {message.id!r}"
    if compiled(catalog) != on_disk(locale):
        yield f"{locale}: the .mo file is not made from the .po file"


def extract() -> Catalog:
    """Collect every message of the code and the templates."""
    catalog = Catalog(charset="utf-8")
    methods: list[Any] = [
        ("**.py", "python"),
        *((f"**.{ending}", extract_template) for ending in ("html", "txt", "mjml")),
    ]
    for folder in FOLDERS:
        found = extract_from_dir(ROOT / folder, methods, keywords=KEYWORDS, comment_tags=("Translators:",))
        for name, _line, message, comments, context in found:
            catalog.add(message, None, [(f"{folder}/{name}", 0)], auto_comments=comments, context=context)
    return catalog


def extract_template(file: BinaryIO, keywords: Any, tags: Any, options: Any) -> Iterator[tuple[int, Any, Any, Any]]:
    for line, function, message, comments in extract_django(file, keywords, tags, options):
        parts = [message] if isinstance(message, str) else message
        doubled = [LONE_PERCENT.sub("%%", part) for part in parts]
        yield line, function, doubled[0] if isinstance(message, str) else doubled, comments


def read(locale: str) -> Catalog:
    path = po_path(locale)
    if not path.exists():
        return Catalog(locale=locale, project="Newsroom", version="1", charset="utf-8")
    with path.open("rb") as file:
        return read_po(file, locale=locale)


def write(catalog: Catalog, locale: str) -> None:
    catalog.fuzzy = False
    path = po_path(locale)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        # Without line numbers, so that a moved line changes no catalogue.
        write_po(file, catalog, width=120, sort_output=True, include_lineno=False, ignore_obsolete=True)
    with path.with_suffix(".mo").open("wb") as file:
        write_mo(file, catalog)


def repeat_source(catalog: Catalog) -> None:
    for message in messages(catalog):
        message.string = message.id


def compiled(catalog: Catalog) -> dict[Any, str]:
    buffer = io.BytesIO()
    write_mo(buffer, catalog)
    buffer.seek(0)
    return translations(buffer)


def on_disk(locale: str) -> dict[Any, str]:
    path = po_path(locale).with_suffix(".mo")
    return translations(io.BytesIO(path.read_bytes())) if path.exists() else {}


def translations(file: io.BytesIO) -> dict[Any, str]:
    catalog: dict[Any, str] = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]  # it has no other door
    return {key: text for key, text in catalog.items() if key}


def messages(catalog: Catalog) -> list[Message]:
    return [message for message in catalog if message.id]


def is_translated(message: Message) -> bool:
    strings = [message.string] if isinstance(message.string, str) else message.string or []
    return bool(strings) and all(strings)


def place(message: Message) -> str:
    return ", ".join(name for name, _line in message.locations)


def po_path(locale: str) -> Path:
    return ROOT / "newsroom" / "locale" / locale / "LC_MESSAGES" / "django.po"


if __name__ == "__main__":
    main()
