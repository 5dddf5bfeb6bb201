from email import message_from_bytes, policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsroom.mail.folding import Mail

LINK = f"<https://news.example.org/newsletter/abmelden/{'a' * 60}/>"


def sent(subject="Der Tag", **headers):
    message = Mail(subject, "Text", "Wochenblitz <a@wochenblitz.example>", ["b@leser.example"], headers=headers)
    message.attach_alternative("<p>Text</p>", "text/html")
    return message.message().as_bytes(linesep="\r\n")


def test_a_long_link_stands_on_its_header_s_line():
    assert f"\r\nList-Unsubscribe: {LINK}\r\n".encode() in sent(**{"List-Unsubscribe": LINK})


@pytest.mark.parametrize(
    "subject", ["Kurz", "Straße " * 20, "A long subject in plain English " * 5, "größer", "🗞 " * 40]
)
def test_a_subject_begins_on_its_header_s_line_and_arrives_as_written(subject):
    raw = sent(subject.strip())

    assert message_from_bytes(raw, policy=policy.default)["Subject"] == subject.strip()
    assert b"\r\nSubject: \r\n" not in raw
    assert all(len(line) <= 76 for line in raw.split(b"\r\n") if b"=?utf-8?" in line)


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp", "Zs"]), min_size=1, max_size=150))
def test_any_subject_survives(subject):
    read = message_from_bytes(sent(subject), policy=policy.default)

    assert read["Subject"] == subject
    assert read["To"] == "b@leser.example"


def test_no_line_is_longer_than_the_standard_allows():
    raw = sent(**{"X-Long": "word " * 400})

    assert max(map(len, raw.split(b"\r\n"))) <= 998
