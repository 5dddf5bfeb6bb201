import pytest

from tests.makers import make_digest

pytestmark = pytest.mark.django_db


def test_every_article_stands_in_both_parts():
    digest = make_digest(articles=3)

    for entry in digest.entries.all():
        assert entry.url in digest.html
        assert entry.url in digest.text
