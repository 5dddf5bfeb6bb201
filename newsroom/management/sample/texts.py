"""The sample articles: written and drawn for this project, one file each."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
PICTURES = FOLDER / "pictures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    slug: str
    headline: str
    section: str
    teaser: str
    author: str
    importance: int
    image: str
    image_alt: str
    image_credit: str
    body: str


@cache
def all_texts() -> tuple[Text, ...]:
    """Return the texts in the order of their names."""
    files = sorted((FOLDER / "articles").glob("*.toml"))
    return tuple(Text(slug=file.stem, **tomllib.loads(file.read_text(encoding="utf-8"))) for file in files)
