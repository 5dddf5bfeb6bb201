from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsroom.mail.macs import Mac, mac_for


@given(st.binary(max_size=64), st.binary(max_size=200))
def test_it_is_the_keyed_hash_of_the_standard_library(key, message):
    assert Mac(key)(message) == blake2b(message, key=key, digest_size=32).digest()


def test_it_is_the_keyed_hash_of_the_rfc():
    # The first of the reference vectors that RFC 7693's authors publish for keyed BLAKE2b: key 00 to 3F, no message.
    code = "10ebb67700b1868efb4417987acf4690ae9d972fb7a590c2f02871799aaa4786b5e996e8f0f4eb981fc214b005f42d2f"
    code += "f4233499391653df7aefcbc13fc51568"

    assert Mac(bytes(range(64)), octets=64)(b"").hex() == code


@pytest.mark.parametrize("length", [0, 1, 32, 63, 64])
def test_one_key_serves_many_messages(length):
    mac, messages = Mac(b"k" * length, octets=60), (b"", b"a", b"b" * 300, b"a")

    codes = [blake2b(message, key=b"k" * length, digest_size=60).digest() for message in messages]
    assert mac.each(messages) == [mac(message) for message in messages] == codes


def test_each_purpose_and_each_key_signs_in_its_own_way():
    codes = [mac_for(purpose, key)(b"row") for purpose in ("one", "two") for key in ("new", "old")]

    assert len(set(codes)) == 4
