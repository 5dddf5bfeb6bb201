import re
import smtplib
import string
from email import message_from_bytes, policy

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from digests import rendering
from newsroom.mail.folding import Mail
from newsroom.mail.moulds import LONGEST_VALUE, Mould
from tests.makers import make_digest
from tests.stand_ins import SmtpStandIn

TO = "to@slot.invalid"
MESSAGE_ID = "message-id.slot.invalid"
SLOTS = [TO, MESSAGE_ID, *rendering.SLOTS]
VALUES = [
    "Leserin.Mueller+news@leser.example",
    "0b8f2a34-7f0c-4a9e-9d55-6d0f6f5f2a11@wochenblitz.example",
    f"https://news.wochenblitz.example/newsletter/abmelden/{'aB3-_' * 9}/",
    f"https://news.wochenblitz.example/newsletter/einstellungen/{'aB3-_' * 9}/",
    f"https://news.wochenblitz.example/newsletter/warum/{'aB3-_' * 9}/",
]

# What a digest's words may be: anything, with lines that begin with dots, or are as long as a line may be and longer.
LINES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=80),
    st.sampled_from([".", "..", ".dot", "=", "=?utf-8?q?a?=", "From here", "--=_0", " ", "\t", "a=3D ", "\u2028", ""]),
    st.sampled_from(SLOTS),
    st.integers(690, 1001).map(lambda length: "x" * length),
    st.integers(480, 505).map(lambda length: "ü" * length),
)
TEXTS = st.lists(st.tuples(LINES, st.sampled_from(["", "\n", "\n", "\r\n", "\r", " "])), max_size=12).map(
    lambda lines: "".join(line + end for line, end in lines)
)
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp", "Zs"]), min_size=1, max_size=60)
SUBJECTS = st.lists(st.one_of(WORDS, st.sampled_from(["=?", "?=", "=?utf-8?q?=41?=", "x" * 300])), min_size=1).map(
    " ".join
)
URL_SIGNS = string.ascii_letters + string.digits + "-._~:/?#[]@!$'()*+,;=%"
URLS = st.one_of(
    st.text(URL_SIGNS, min_size=1, max_size=LONGEST_VALUE), st.text("=.", min_size=1, max_size=LONGEST_VALUE)
)
ADDRESSES = st.text(string.ascii_letters + string.digits + "!#$%'*+-/=?^_`{|}~", min_size=1, max_size=64).map(
    "{}@leser.example".format
)
HEADERS = st.lists(st.text(string.ascii_letters + "=?:<>,;", min_size=1, max_size=70), min_size=1, max_size=25).map(
    " ".join
)


def make(text="Guten Tag\n", html="<p>Guten Tag</p>\n", subject="Der Tag", *, name="Wochenblitz", fill=str, header="x"):
    """A mail whose slots are filled by `fill`; as it is, it keeps them."""
    links = "\n".join(SLOTS)
    name = re.sub(r"[^\w .-]", "x", name)  # Django refuses what is no display name
    message = Mail(
        subject=subject,
        body=fill(f"{text}\n{links}"),
        from_email=f'"{name}" <newsletter@wochenblitz.example>',
        to=[fill(TO)],
        headers={
            "Message-ID": fill(f"<{MESSAGE_ID}>"),
            "Date": "Sun, 22 Nov 2026 06:00:00 +0100",
            "List-Unsubscribe": fill(f"<{rendering.UNSUBSCRIBE_SLOT}>"),
            "X-Words": header,
        },
    )
    message.attach_alternative(fill(f'{html}<a href="{rendering.UNSUBSCRIBE_SLOT}">'), "text/html")
    return message


def fill_with(values):
    by_slot = dict(zip(SLOTS, values, strict=True))
    pattern = re.compile("|".join(map(re.escape, SLOTS)))
    return lambda words: pattern.sub(lambda slot: by_slot[slot[0]], words)


def read(content):
    """Each part's headers, unfolded, and its decoded octets; what says how they are encoded is left out."""
    return [
        (
            [
                (name, re.sub(r"\r\n(?=[ \t])", "", str(value)))
                for name, value in part.items()
                if name != "Content-Transfer-Encoding" and not (part.is_multipart() and name == "Content-Type")
            ],
            part.get_content_type(),
            None if part.is_multipart() else part.get_payload(decode=True),
        )
        for part in message_from_bytes(content).walk()
    ]


def as_django_writes(message):
    return message.message().as_bytes(linesep="\r\n")


@settings(max_examples=60, deadline=None)
@given(TEXTS, TEXTS, SUBJECTS, WORDS, HEADERS, ADDRESSES, st.tuples(URLS, URLS, URLS), st.booleans())
@example(".\n..\n" + ".x\n" * 3, "<p>.</p>\n.\n", "S", "W", "x", "a@leser.example", (".", "..", "=" * 300), False)
@example("x" * 990 + TO, "ü", "S", "W", "x", "a@leser.example", ("x" * 300, "y", "z"), True)
@example(
    f" {TO} \n{TO}.", "ü", "=?utf-8?q?", "ü" * 60, "x " * 500 + "x", "=?x?=@leser.example", ("a b", "c ", " d"), False
)
def test_a_cast_reads_as_the_message_that_django_writes(text, html, subject, name, header, to, links, eight_bit):
    # A slot's line in HTML takes links, not addresses; those are not what an article says.
    html = fill_with(["", "", "", "", ""])(html)
    values = [to, "id@wochenblitz.example", *links]

    cast = Mould(make(text, html, subject, name=name, header=header), SLOTS).content(values, eight_bit=eight_bit)

    written = as_django_writes(make(text, html, subject, name=name, header=header, fill=fill_with(values)))
    assert read(cast) == read(written)
    assert all(len(line) <= 998 for line in cast.split(b"\r\n"))
    assert b"\r" not in cast.replace(b"\r\n", b"") and b"\n" not in cast.replace(b"\r\n", b"")
    assert eight_bit or cast.isascii()


@settings(max_examples=30, deadline=None)
@given(TEXTS, st.tuples(URLS, URLS, URLS))
@example("x" * 142 + f" {TO}", ("0", "0", "0"))
@example("x" * 143 + f" {TO}", ("0", "0", "0"))
@example("x" * 144 + f" {TO}", ("0", "0", "0"))
def test_encoded_lines_are_as_short_as_they_have_to_be(text, links):
    cast = Mould(make(f"ü{text}"), SLOTS).content([TO, MESSAGE_ID, *links], eight_bit=False)

    encoded = cast.partition(b"quoted-printable\r\n\r\n")[2].partition(b"\r\n--=_")[0]
    assert encoded.startswith(b"=C3=BC")
    assert max(map(len, encoded.split(b"\r\n"))) <= 76


@settings(max_examples=30, deadline=None)
@given(TEXTS, ADDRESSES, URLS, st.booleans())
def test_only_the_last_line_of_a_cast_is_a_lone_dot(text, to, link, eight_bit):
    mould, values = Mould(make(text), SLOTS), [to, "id", link, link, "."]
    cast = mould.cast(values, eight_bit=eight_bit)

    lines = cast.split(b"\r\n")
    assert lines[-2:] == [b".", b""]
    assert all(line.startswith(b"..") for line in lines[:-2] if line.startswith(b"."))
    as_read = [line.removeprefix(b".") for line in lines[:-2]]
    assert mould.content(values, eight_bit=eight_bit).split(b"\r\n")[:-1] == as_read


@pytest.mark.parametrize("body", ["Grüße", "Gruss\n", f"Grüße {TO}", TO, "Grüße " + "x" * 1000 + TO])
@pytest.mark.parametrize("eight_bit", [True, False])
def test_a_mail_of_text_alone_is_cast_too(body, eight_bit):
    message = Mail("Der Tag", body, "a@wochenblitz.example", [TO], headers={"Message-ID": "<1@x>", "Date": "now"})

    parsed = message_from_bytes(Mould(message, [TO]).content(["b@leser.example"], eight_bit=eight_bit))

    words = parsed.get_payload(decode=True).decode()
    assert words.removesuffix("\r\n") == body.replace(TO, "b@leser.example").removesuffix("\n")
    assert parsed["To"] == "b@leser.example"


def test_message_id_and_recipient_stand_on_whole_lines():
    address = f"{'a' * 64}@{'b' * 60}.{'c' * 60}.{'d' * 60}.example"
    cast = Mould(make(), SLOTS).cast([address, *VALUES[1:]], eight_bit=True)

    assert f"\r\nTo: {address}\r\n".encode() in cast
    assert f"\r\nMessage-ID: <{VALUES[1]}>\r\n".encode() in cast
    assert f"\r\nList-Unsubscribe: <{VALUES[2]}>\r\n".encode() in cast


def test_two_casts_of_one_mould_differ_in_their_slots_alone_and_so_do_two_moulds():
    other = ["b@leser.example", *VALUES[1:]]
    first, second = Mould(make("ü"), SLOTS), Mould(make("ü"), SLOTS)

    for eight_bit in (True, False):
        cast = first.cast(VALUES, eight_bit=eight_bit)
        assert cast == second.cast(VALUES, eight_bit=eight_bit)
        assert cast.replace(VALUES[0].encode(), b"b@leser.example") == first.cast(other, eight_bit=eight_bit)


def test_the_boundary_stands_in_no_part():
    earlier = Mould(make(), SLOTS).content(VALUES, eight_bit=True)
    boundary = message_from_bytes(earlier).get_boundary()

    # Whoever has a digest may have its boundary printed in the next.
    cast = Mould(make(f"--{boundary}\n\n--{boundary}--\n"), SLOTS).content(VALUES, eight_bit=True)

    assert len(list(message_from_bytes(cast).walk())) == 3


@pytest.mark.parametrize("message", [
    Mail("Der Tag", "Text", "a@wochenblitz.example", ["b@leser.example"]),
    Mail(f"Größe {TO}", TO, "a@wochenblitz.example", ["b@leser.example"]),
    Mail("Der Tag", TO, "a@wochenblitz.example", [TO], headers={"X-Long": f"{'long ' * 140}{TO}"}),
    Mail("Der Tag", TO, "a@wochenblitz.example", [TO], headers={"X-Words": f"Größe {TO}"}),
    Mail("Der Tag", TO, "a@wochenblitz.example", [TO], attachments=[("a.bin", b"\0", "application/octet-stream")]),
])  # fmt: skip
def test_a_slot_that_could_be_lost_is_refused(message):
    with pytest.raises(ValueError, match=r"slot|Only text"):
        Mould(message, [TO])


@pytest.mark.parametrize("slots", [[TO, TO], ["a=b"], ["two words"], [""], ["schräg"]])
def test_a_slot_is_one_plain_word(slots):
    with pytest.raises(ValueError, match="Slots are"):
        Mould(make(), slots)


@pytest.mark.parametrize("value", ["", "ü", "a\r\nBcc: b@leser.example", "a\nb", "\0", "x" * (LONGEST_VALUE + 1)])
@pytest.mark.parametrize("place", range(5))
def test_a_value_that_would_break_the_message_is_refused_and_not_quoted(value, place):
    mould = Mould(make(), SLOTS)

    with pytest.raises(ValueError, match="A value for a slot") as caught:
        mould.cast([*VALUES[:place], value, *VALUES[place + 1 :]], eight_bit=True)

    assert not value or value not in str(caught.value)


@pytest.mark.parametrize("sign", ['"', "<", ">", "&"])
def test_a_link_cannot_break_out_of_its_attribute(sign):
    mould = Mould(make(), SLOTS)
    by_address = mould.cast([f"a{sign}b", *VALUES[1:]], eight_bit=True)

    assert f"\r\nTo: a{sign}b\r\n".encode() in by_address
    with pytest.raises(ValueError, match="in HTML"):
        mould.cast([*VALUES[:2], f"https://x.example/{sign}", *VALUES[3:]], eight_bit=True)


@pytest.mark.parametrize("count", [0, 4, 6])
def test_there_is_a_value_for_each_slot(count):
    with pytest.raises(ValueError, match="one for each"):
        Mould(make(), SLOTS).cast((VALUES * 2)[:count], eight_bit=True)


# A real digest


def build(digest, values):
    to, message_id, unsubscribe, preferences, why = values
    return rendering.Copies(digest).message(
        to=to,
        unsubscribe_url=unsubscribe,
        preferences_url=preferences,
        why_url=why,
        message_id=f"<{message_id}>",
        date=digest.created_at,
    )


@pytest.mark.django_db
@pytest.mark.parametrize("eight_bit", [True, False])
def test_a_digest_is_cast_as_it_was_built(eight_bit):
    digest = make_digest(articles=8)

    cast = Mould(build(digest, SLOTS), SLOTS).content(VALUES, eight_bit=eight_bit)

    assert read(cast) == read(as_django_writes(build(digest, VALUES)))
    parsed = message_from_bytes(cast, policy=policy.default)
    assert not parsed.defects and not any(part.defects for part in parsed.walk())
    assert ".slot.invalid" not in "".join(part.get_content() for part in parsed.iter_parts())


@pytest.mark.django_db
@pytest.mark.parametrize("eight_bit", [True, False])
def test_a_digest_arrives_at_a_server_as_it_was_built(eight_bit):
    digest = make_digest(articles=3)
    cast = Mould(build(digest, SLOTS), SLOTS).cast(VALUES, eight_bit=eight_bit)

    with SmtpStandIn(eight_bit=eight_bit) as server, smtplib.SMTP("127.0.0.1", server.port) as session:
        session.ehlo()
        session.mail("newsletter@wochenblitz.example", ["BODY=8BITMIME"] if eight_bit else [])
        session.rcpt(VALUES[0])
        session.docmd("DATA")
        session.send(cast)
        code, _reply = session.getreply()

    (mail,) = server.received
    assert code == 250
    assert read(mail.content) == read(as_django_writes(build(digest, VALUES)))
