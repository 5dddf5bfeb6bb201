from base64 import urlsafe_b64decode, urlsafe_b64encode
from uuid import UUID, uuid4

import pytest

from subscriptions import links
from subscriptions.links import Purpose

OLD_KEY = "an-older-key-for-tests-0123456789-0123456789-0123456789"


def test_a_token_is_derived_again_from_what_its_row_keeps():
    row = uuid4()
    seed = links.new_seed(Purpose.CONFIRM, row)

    token = links.derive_token(Purpose.CONFIRM, row, seed)

    assert links.hash_token(token) == seed.token_hash
    assert token not in (seed.nonce, seed.token_hash)
    assert len(token) == 43  # 256 bits


def test_a_token_of_one_purpose_is_none_of_another():
    row = uuid4()
    seed = links.new_seed(Purpose.CONFIRM, row)

    with pytest.raises(links.KeyGone):
        links.derive_token(Purpose.RIGHTS, row, seed)


def test_a_token_in_a_mail_opens_what_it_is_for_and_nothing_else(settings):
    settings.SECRET_KEY_FALLBACKS = [OLD_KEY]
    readers = (links.read_unsubscribe_token, links.read_preferences_token, links.read_why_token)
    row = uuid4()

    opened = [[read(token) for read in readers] for token in links.issue_tokens([row])[0]]

    assert opened == [[row, None, None], [None, row, None], [None, None, row]]


def test_a_signature_is_good_for_its_own_row_and_place_alone():
    row, other = uuid4(), uuid4()
    [tokens] = links.issue_tokens([row])
    signatures = [urlsafe_b64decode(token)[16:] for token in tokens]
    code = b"".join(signatures)
    forged = [other.bytes + signature for signature in signatures]
    forged += [row.bytes + code[start : start + 20] for start in range(1, 20)]

    assert not any(links.read_unsubscribe_token(urlsafe_b64encode(each).decode()) for each in forged)


def test_an_unsubscribe_token_is_48_plain_characters_and_names_its_subscription():
    row = uuid4()

    token = links.unsubscribe_token(row)

    assert len(token) == 48
    assert token.isascii() and token.replace("-", "a").replace("_", "a").isalnum()
    assert links.read_unsubscribe_token(token) == row


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: t[:-1],
        lambda t: t + "A",
        lambda t: t[:-1] + "é",
        lambda t: t + "=",
        lambda t: "",
        lambda t: t[1:] + "x",
    ],
)
def test_a_spoilt_token_is_nobodys(spoil):
    assert links.read_unsubscribe_token(spoil(links.unsubscribe_token(uuid4()))) is None


def test_every_changed_character_spoils_a_token():
    token = links.unsubscribe_token(uuid4())

    for place in range(len(token)):
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        assert links.read_unsubscribe_token(changed) is None


def test_links_outlive_a_change_of_key(settings):
    row, new_key = uuid4(), settings.SECRET_KEY
    settings.SECRET_KEY = OLD_KEY
    token, seed = links.unsubscribe_token(row), links.new_seed(Purpose.CONFIRM, row)
    old_derived = links.derive_token(Purpose.CONFIRM, row, seed)

    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = new_key, [OLD_KEY]

    assert links.read_unsubscribe_token(token) == row
    assert links.derive_token(Purpose.CONFIRM, row, seed) == old_derived
    settings.SECRET_KEY_FALLBACKS = []
    assert links.read_unsubscribe_token(token) is None
    with pytest.raises(links.KeyGone):
        links.derive_token(Purpose.CONFIRM, row, seed)


def test_links_are_absolute_and_short_enough_for_a_header(settings):
    settings.SITE_URL = "https://www.example.com"

    url = links.unsubscribe_url(uuid4())

    assert url.startswith("https://www.example.com/newsletter/abmelden/")
    assert url.endswith("/") and len(url) < 200


def test_the_tokens_of_mails_sent_long_ago_are_still_made_and_read(settings):
    settings.SECRET_KEY, row = OLD_KEY, UUID("0b8f2a34-7f0c-4a9e-9d55-6d0f6f5f2a11")
    leave = "C48qNH8MSp6dVW0Pb18qEUgaFprNt7nTs1kbIHGs_pbb1J21"
    preferences = "C48qNH8MSp6dVW0Pb18qERWQ4-NaxCxWgMZOr5vC40gS4L7s"
    why = "C48qNH8MSp6dVW0Pb18qEc5RNTykoedN9TQQt0LWdslFJ_jJ"
    seed = links.TokenSeed("0123456789abcdef" * 2, links.hash_token("OBOt-kHBJcmQqJAgMU-JlktrPEn8aPyy0ZQgBsFz0Es"))

    assert links.issue_tokens([row]) == [(leave, preferences, why)]
    assert (links.unsubscribe_token(row), links.preferences_token(row), links.why_token(row)) == (
        leave,
        preferences,
        why,
    )
    assert links.read_unsubscribe_token(leave) == links.read_preferences_token(preferences) == row
    assert links.read_why_token(why) == row
    assert links.hash_token(links.derive_token(Purpose.CONFIRM, row, seed)) == seed.token_hash


def test_the_three_links_of_an_issue_are_those_made_one_by_one():
    rows = [uuid4() for _ in range(50)]

    assert links.issue_urls(links.issue_tokens(rows)) == [
        (links.unsubscribe_url(row), links.preferences_url(row), links.why_url(row)) for row in rows
    ]
