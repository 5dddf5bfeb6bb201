import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from newsroom.mail.macs import Mac


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_it_is_the_hmac_of_the_standard_library(key, message):
    assert Mac(key)(message) == hmac.digest(key, message, "sha256")


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 128])
def test_one_key_serves_many_messages(length):
    mac, messages = Mac(b"k" * length), (b"", b"a", b"b" * 300, b"a")

    codes = [hmac.digest(b"k" * length, message, "sha256") for message in messages]
    assert mac.each(messages) == [mac(message) for message in messages] == codes
