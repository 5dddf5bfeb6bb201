"""What goes out over SMTP is serialised once for all readers, and yet each one's own."""

from email import message_from_bytes
from uuid import uuid4

import pytest
from django.utils import timezone

from digests import handover
from digests.handover import Letter, PreparedCopies
from tests.makers import make_digest

pytestmark = pytest.mark.django_db


def make_letter(address="Leserin.Mueller+news@leser.example"):
    return Letter(uuid4(), 1, 0, address, uuid4(), timezone.now())


def read(content):
    """Each part's headers, but for the time and how parts are set apart, and its words."""
    return [
        (
            [
                (name, value.replace("\r\n", "").replace("\n", ""))
                for name, value in part.items()
                if name not in {"Date", "Content-Transfer-Encoding"} and "boundary=" not in value
            ],
            None if part.is_multipart() else part.get_payload(decode=True),
        )
        for part in message_from_bytes(content).walk()
    ]


def sent(parcel, *, eight_bit):
    """A parcel's octets as its receiver reads them, the same whether they come as a chunk or with SMTP's dots."""
    pieces, has_eight_bit = parcel.content(eight_bit, False)
    octets = b"".join(pieces)
    assert has_eight_bit == (not octets.isascii())
    read = (b"\r\n" + octets.removesuffix(b".\r\n")).replace(b"\r\n.", b"\r\n")[2:]
    assert read == b"".join(parcel.content(eight_bit, True)[0])
    return read


@pytest.mark.parametrize("eight_bit", [True, False])
def test_a_prepared_copy_reads_as_the_message_built_for_that_reader(eight_bit):
    digest = make_digest(articles=5)
    prepared, copies = PreparedCopies(digest), handover.Copies(digest)

    letters = [make_letter(), make_letter("a&b@leser.example")]
    for letter, parcel in zip(letters, prepared.parcels(letters), strict=True):
        built = copies.message(letter).message().as_bytes(linesep="\r\n")  # type: ignore[call-arg]
        assert read(sent(parcel, eight_bit=eight_bit)) == read(built)
        assert b".slot.invalid" not in sent(parcel, eight_bit=eight_bit)


@pytest.mark.parametrize("address", ["ü@leser.example", "a@b.example, c@d.example", "a@b.example\r\nBcc: c@d.example"])
def test_a_copy_for_what_is_no_address_is_none_and_others_are_not_kept_from_theirs(address):
    digest, other = make_digest(), make_letter()

    odd, ordinary = PreparedCopies(digest).parcels([make_letter(address), other])

    with pytest.raises(ValueError, match="To: is not one address"):
        odd.content(True, True)
    assert f"\r\nTo: {other.address}\r\n".encode() in b"".join(ordinary.content(True, True)[0])
