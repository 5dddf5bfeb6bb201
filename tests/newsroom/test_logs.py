import pytest

from newsroom.logs import mask

TOKEN = "8j50Jo_evbc4lC46HWXbi5hEM0Uj2qCzWDI0K0p6K2s"


@pytest.mark.parametrize(
    "path",
    [
        f"/newsletter/bestaetigen/{TOKEN}/",
        f"/newsletter/bestaetigen//{TOKEN}/",
        f"/newsletter/abmelden/{TOKEN[:30]}",
        f"/newsletter/warum/{TOKEN[:30]}",
        f"/elsewhere/{TOKEN}/",
        f"task(token='{TOKEN}')",
    ],
)
def test_no_token_stands_in_a_log_wherever_it_came_from(path):
    assert TOKEN[:30] not in mask(f"Not Found: {path}")


def test_no_address_stands_in_a_log():
    assert mask("Refused: leser.in+x@sub.example.com, why?") == "Refused: …@…, why?"


@pytest.mark.parametrize(
    "harmless",
    [
        "newsroom.mail.tasks.send_outbox[0c5b1d3e-8a5e-4f0e-9a52-9b1f9a0c7d11] expired",
        "Not Found: /artikel/warum-die-erste-nacht-im-fremden-bett-so-schlecht-ist/",
    ],
)
def test_what_helps_to_find_a_fault_stays(harmless):
    assert mask(harmless) == harmless
