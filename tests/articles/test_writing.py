from datetime import timedelta

import pytest
from django.utils import timezone

from newsroom.articles import writing
from newsroom.articles.models import Article
from tests.makers import make_article, make_section

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "payload",
    [
        "<script>steal()</script>",
        "<p onclick=steal()>Text</p>",
        "<img src=x onerror=steal()>",
        '<a href="javascript:steal()">Link</a>',
        '<a href="data:text/html,<script>steal()</script>">Link</a>',
        "<svg><script>steal()</script></svg>",
        "<style>p { background: url(//steal.example/) }</style>",
        '<iframe src="https://steal.example/"></iframe>',
        '<p style="background: url(//steal.example/)">Text</p>',
        "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=steal()&gt;'>",
        '<form action="//steal.example/"><input name="password"></form>',
        "<<p>script>steal()<</p>/script>",
    ],
)
def test_nothing_that_acts_or_loads_survives_in_a_text(payload):
    cleaned = writing.clean_body(f"<p>Vorher</p>{payload}")

    for trace in (
        "<script",
        "<img",
        "<iframe",
        "<style",
        "<svg",
        "<form",
        "<input",
        "onclick",
        "style=",
        "javascript:",
    ):
        assert trace not in cleaned
    assert "steal.example" not in cleaned
    assert "Vorher" in cleaned


def test_what_a_text_is_made_of_survives():
    body = (
        "<h2>Zwischentitel</h2><p>Ein <em>Satz</em> mit <strong>Gewicht</strong>.</p>"
        "<ul><li>Punkt</li></ul><blockquote>Zitat</blockquote>"
    )

    assert writing.clean_body(body) == body


def test_links_stay_and_tell_the_other_site_nothing_of_the_window():
    cleaned = writing.clean_body('<p><a href="https://amt.example/bericht" target="_blank">Bericht</a></p>')

    assert cleaned == '<p><a href="https://amt.example/bericht" rel="noopener">Bericht</a></p>'


def test_a_text_without_tags_becomes_paragraphs():
    assert writing.clean_body("Erster Absatz, 3 < 4.\n\nZweiter") == "<p>Erster Absatz, 3 &lt; 4.</p>\n\n<p>Zweiter</p>"


def test_cleaning_twice_changes_nothing():
    once = writing.clean_body("<p>Müller & Söhne, „5 < 6“</p><h2>Weiter</h2>")

    assert writing.clean_body(once) == once


def test_an_article_is_first_seen_when_it_is_published():
    now = timezone.now()
    article = make_article(state=Article.State.DRAFT, first_seen_at=now - timedelta(days=5))

    article.state = Article.State.PUBLISHED
    writing.store(article, now=now)

    article.refresh_from_db()
    assert article.first_seen_at == now


def test_correcting_a_published_article_does_not_make_it_new():
    seen = timezone.now() - timedelta(hours=20)
    article = make_article(first_seen_at=seen)

    article.headline = "Berichtigte Überschrift"
    writing.store(article, now=timezone.now())

    article.refresh_from_db()
    assert article.first_seen_at == seen


def test_an_article_planned_for_later_is_seen_when_it_comes():
    now = timezone.now()
    tomorrow = now + timedelta(days=1)
    article = Article(
        section=make_section(),
        headline="Morgen",
        slug="morgen",
        teaser="…",
        body="<p>…</p>",
        author="A. B.",
        state=Article.State.PUBLISHED,
        published_at=tomorrow,
    )

    writing.store(article, now=now)

    assert article.first_seen_at == tomorrow
    assert not Article.objects.published(now).filter(pk=article.pk).exists()


def test_bringing_a_planned_article_forward_brings_its_first_sight_forward():
    now = timezone.now()
    article = make_article(published_at=now + timedelta(days=2), first_seen_at=now + timedelta(days=2))

    article.published_at = now
    writing.store(article, now=now)

    article.refresh_from_db()
    assert article.first_seen_at == now
