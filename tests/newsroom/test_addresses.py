"""An address has one form, in which every mail library sees the same single recipient, or none at all."""

from email.headerregistry import Address as HeaderAddress
from email.utils import getaddresses

import pytest
from anymail.utils import parse_address_list
from django.core.mail.message import sanitize_address
from django.utils import translation
from hypothesis import example, given
from hypothesis import strategies as st

from newsroom.mail import addresses
from newsroom.mail.addresses import InvalidAddress, canonicalise


@pytest.mark.parametrize(
    ("typed", "canonical", "key"),
    [
        ("leserin@leser.example", "leserin@leser.example", "leserin@leser.example"),
        ("  leserin@leser.example\n", "leserin@leser.example", "leserin@leser.example"),
        ("\u200bleserin@leser.example\ufeff", "leserin@leser.example", "leserin@leser.example"),
        ("Jane.Doe@Leser.Example", "Jane.Doe@leser.example", "jane.doe@leser.example"),
        ("LESERIN@LESER.EXAMPLE", "LESERIN@leser.example", "leserin@leser.example"),
        ("a@münchen.example", "a@xn--mnchen-3ya.example", "a@xn--mnchen-3ya.example"),
        ("a@mu\u0308nchen.example", "a@xn--mnchen-3ya.example", "a@xn--mnchen-3ya.example"),
        ("a@MÜNCHEN.example", "a@xn--mnchen-3ya.example", "a@xn--mnchen-3ya.example"),
        ("a@xn--mnchen-3ya.example", "a@xn--mnchen-3ya.example", "a@xn--mnchen-3ya.example"),
        ("a@XN--MNCHEN-3YA.example", "a@xn--mnchen-3ya.example", "a@xn--mnchen-3ya.example"),
        ("a@straße.example", "a@xn--strae-oqa.example", "a@xn--strae-oqa.example"),
        ("a@пример.example", "a@xn--e1afmkfd.example", "a@xn--e1afmkfd.example"),
        ("a@日本語ラーメン.example", "a@xn--4dkp5a8a5557ccvb2w6i.example", "a@xn--4dkp5a8a5557ccvb2w6i.example"),
        ("a+tag@leser.example", "a+tag@leser.example", "a+tag@leser.example"),
        ("=cmd|x@leser.example", "=cmd|x@leser.example", "=cmd|x@leser.example"),
        ("!#$%&'*+/?=^_`{|}~-@leser.example", "!#$%&'*+/?=^_`{|}~-@leser.example", "!#$%&'*+/?=^_`{|}~-@leser.example"),
        ("x" * 64 + "@leser.example", "x" * 64 + "@leser.example", "x" * 64 + "@leser.example"),
    ],
)
def test_what_is_typed_has_one_form(typed: str, canonical: str, key: str) -> None:
    address = canonicalise(typed)

    assert (address.canonical, address.key) == (canonical, key)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a+x@leser.example", "a@leser.example"),
        ("a.b@leser.example", "ab@leser.example"),
        ("a@straße.example", "a@strasse.example"),
        ("a@leser.example", "a@www.leser.example"),
        ("a@пример.example", "a@primer.example"),
        ("a@ѕсоре.example", "a@scope.example"),  # all Cyrillic, and another mailbox
        ("mike@leser.example", "mlke@leser.example"),
    ],
)
def test_distinct_mailboxes_are_never_merged(one: str, other: str) -> None:
    assert canonicalise(one).key != canonicalise(other).key


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", addresses._EMPTY),
        (" \u200b ", addresses._EMPTY),
        ("leser.example", addresses._NO_AT),
        ("@leser.example", addresses._NO_LOCAL),
        ("a@", addresses._NO_DOMAIN),
        ("a@b", addresses._NO_TOP_LEVEL),
        ("a@leser.x", addresses._NO_TOP_LEVEL),
        ("a@leser.example.", addresses._NO_TOP_LEVEL),
        ("a@127.0.0.1", addresses._IP_ADDRESS),
        ("a@[127.0.0.1]", addresses._IP_ADDRESS),
        ("a@[IPv6:::1]", addresses._IP_ADDRESS),
        ("a@leser.example, b@leser.example", addresses._SEVERAL),
        ("a@leser.example;b@leser.example", addresses._SEVERAL),
        ("a@exa mple.com", addresses._SPACES),
        ("a b@leser.example", addresses._SPACES),
        ("x@leser.example\nBcc: y@leser.example", addresses._SPACES),
        ("x\x00@leser.example", addresses._SPACES),
        ("x@leser\u200d.example", addresses._SPACES),
        ("x\u202e@leser.example", addresses._SPACES),
        ("jürgen@leser.example", addresses._NON_ASCII_LOCAL),
        ("mıke@leser.example", addresses._NON_ASCII_LOCAL),
        ("ａ@leser.example", addresses._NON_ASCII_LOCAL),
        ('"a"@leser.example', addresses._MALFORMED),
        ("a(b)@leser.example", addresses._MALFORMED),
        ("<a@leser.example>", addresses._MALFORMED),
        ("a@b@leser.example", addresses._MALFORMED),
        (".a@leser.example", addresses._MALFORMED),
        ("a.@leser.example", addresses._MALFORMED),
        ("a..b@leser.example", addresses._MALFORMED),
        ("=?utf-8?q?a?=@leser.example", addresses._MALFORMED),
        ("a@leser..example", addresses._BAD_DOMAIN),
        ("a@-leser.example", addresses._BAD_DOMAIN),
        ("a@le_ser.example", addresses._BAD_DOMAIN),
        ("a@xn--a.example", addresses._BAD_DOMAIN),
        ("a@☃.example", addresses._BAD_DOMAIN),
        ("a@" + "x" * 64 + ".example", addresses._BAD_DOMAIN),
        ("a@leser.example>", addresses._BAD_DOMAIN),
        ("a@ⓔxample.com", addresses._LOOKALIKE),
        ("a@ｅxample.com", addresses._LOOKALIKE),
        ("a@example。com", addresses._LOOKALIKE),
        ("a@аpple.com", addresses._LOOKALIKE),
        ("a@xn--pple-43d.com", addresses._LOOKALIKE),
        ("a@gοοgle.com", addresses._LOOKALIKE),
        ("x" * 65 + "@leser.example", addresses._TOO_LONG),
        ("x" * 60 + "@" + ".".join(["y" * 60] * 3) + ".example.com", addresses._TOO_LONG),
        ("x" * 10_000_000, addresses._TOO_LONG),
    ],
)
def test_what_cannot_be_sent_to_is_refused_in_words(typed: str, message: str) -> None:
    with pytest.raises(InvalidAddress) as caught:
        canonicalise(typed)

    assert str(caught.value) == str(message)
    assert caught.value.__cause__ is None


def test_the_words_are_the_readers() -> None:
    with pytest.raises(InvalidAddress) as caught:
        canonicalise("leser.example")
    with translation.override("en"):
        assert str(caught.value).startswith("The @ sign is missing.")


def test_readers_see_their_own_letters_and_lists_a_mask() -> None:
    address = canonicalise("Jürgen@münchen.de".replace("ü", "u", 1))

    assert address.canonical == "Jurgen@xn--mnchen-3ya.de"
    assert address.display == "Jurgen@münchen.de"
    assert address.masked == "J…@x….de"
    assert "urgen" not in repr(address)


letters = st.text(st.sampled_from("aA.@-_+=?,;<>()[]\"' \t\n\\:ßüïаⓔ。\u0308\u200d\u202e1"), max_size=40)
likely = st.builds("{}@{}.{}".format, letters, letters, st.sampled_from(["de", "com", "example"]))


@given(st.one_of(st.text(max_size=330), letters, likely, st.emails()))
@example("a@faß.de")
@example("a@ẞ.de")
@example("a@İstanbul.de")
def test_nothing_but_one_recipient_ever_comes_out(typed: str) -> None:
    try:
        address = canonicalise(typed)
    except InvalidAddress:
        return

    assert canonicalise(address.canonical).canonical == address.canonical
    assert canonicalise(address.key).key == address.key
    assert canonicalise(address.display).canonical == address.canonical
    assert [parsed.addr_spec for parsed in parse_address_list([address.canonical])] == [address.canonical]
    assert sanitize_address(address.canonical, "utf-8") == address.canonical
    assert HeaderAddress(addr_spec=address.canonical).addr_spec == address.canonical
    assert address.canonical.isascii()
    assert len(address.canonical) <= 254


@given(st.from_regex(addresses._PLAIN, fullmatch=True))
def test_a_plain_address_is_read_as_itself_by_who_sends_it(address: str) -> None:
    assert getaddresses([address]) == [("", address)]
