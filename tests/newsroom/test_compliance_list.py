"""The list of requirements names what is there; what is renamed or removed is noticed here."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
STATES = {"fulfilled", "partly", "later", "operator's duty"}
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "compliance.md").read_text().splitlines()
    if re.match(r"\| [RE]-\d\d ", line)
]
NAMED = [(row[0], name) for row in ROWS for name in re.findall(r"`([^`]+)`", row[4])]
PLACES = [(row[0], *place.split(":")) for row in ROWS for place in re.findall(r"`([^`]+)`", row[3])]


def names_in(path: Path) -> set[str]:
    """Return what a module defines, on whatever level."""
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, defined)}


def all_tests() -> set[str]:
    return {name for path in (ROOT / "tests").rglob("test_*.py") for name in names_in(path) if name.startswith("test_")}


def test_every_number_is_there_once_in_order():
    assert [row[0] for row in ROWS] == [f"R-{n:02}" for n in range(1, 50)] + [f"E-{n:02}" for n in range(1, 47)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_is_called_fulfilled_is_shown_by_a_test(row):
    _number, sentence, state, places, tests = row

    assert sentence.endswith(".") and state in STATES
    assert (state in {"fulfilled", "partly"}) <= bool(places and tests)
    assert (state == "later") <= (not places and not tests)


def test_every_test_that_is_named_exists():
    tests = all_tests()

    assert [(number, name) for number, name in NAMED if name not in tests] == []


def test_every_place_that_is_named_exists():
    gone = [place for place in PLACES if place[2] not in names_in(ROOT / place[1])]

    assert PLACES and gone == []


def test_every_test_named_after_a_requirement_stands_in_its_row():
    listed = set(NAMED)
    numbers = re.compile(r"([re])(\d\d)_")
    owed = set()
    for path in (ROOT / "tests" / "compliance").glob("test_*.py"):
        for name in names_in(path):
            prefix = re.match(r"test_((?:[re]\d\d_)+)(to_)?", name)
            if prefix and not prefix[2]:
                owed |= {(f"{kind.upper()}-{number}", name) for kind, number in numbers.findall(prefix[1])}

    assert sorted(owed - listed) == []
