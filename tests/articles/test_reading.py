from datetime import timedelta

import pytest
from django.utils import timezone

from newsroom.articles.front import FULL_PAGE, front_page
from newsroom.articles.models import Article
from tests.makers import make_article, make_picture, make_section

pytestmark = pytest.mark.django_db


def hours_ago(hours: float):
    return timezone.now() - timedelta(hours=hours)


def test_the_front_page_shows_todays_articles_by_section():
    politics, culture = make_section(name="Politik", position=1), make_section(name="Kultur", position=2)
    make_article(section=culture, headline="Aufmacher", importance=Article.Importance.LEAD)
    make_article(section=culture, headline="Orgel")
    make_article(section=politics, headline="Rat")

    front = front_page(timezone.now())

    assert front.lead.headline == "Aufmacher"
    shown = [(group.section.name, [article.headline for article in group.articles]) for group in front.sections]
    assert shown == [("Politik", ["Rat"]), ("Kultur", ["Orgel"])]


def test_what_was_first_seen_a_day_ago_is_no_news_any_more():
    new, old = make_article(first_seen_at=hours_ago(23.9)), make_article(first_seen_at=hours_ago(24.1))

    front = front_page(timezone.now())

    assert front.lead == new
    assert front.recent == [old]


def test_every_article_stands_on_the_front_page_once():
    section = make_section()
    for hours in range(1, 40, 2):
        make_article(section=section, first_seen_at=hours_ago(hours))

    front = front_page(timezone.now())

    shown = [front.lead, *front.recent, *(article for group in front.sections for article in group.articles)]
    assert len(shown) == len(set(shown))


def test_a_quiet_day_is_filled_with_the_days_before():
    section = make_section()
    for days in range(2, 30):
        make_article(section=section, first_seen_at=hours_ago(24 * days))

    front = front_page(timezone.now())

    assert front.lead is not None
    assert len(front.recent) == FULL_PAGE - 1


def test_an_empty_newsroom_has_a_front_page(client):
    response = client.get("/")

    assert response.status_code == 200


@pytest.mark.parametrize("values", [{"state": "draft"}, {"published_at": timezone.now() + timedelta(days=1)}])
def test_what_is_not_published_is_shown_nowhere(client, values):
    article = make_article(headline="Noch geheim", **values)

    assert client.get(article.get_absolute_url()).status_code == 404
    assert "Noch geheim" not in client.get("/").content.decode()
    assert "Noch geheim" not in client.get(f"/ressort/{article.section.slug}/").content.decode()


def test_an_article_shows_all_it_has(client, settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    article = make_article(
        headline="Die <neue> Brücke",
        body="<h2>Zwischentitel</h2><p>Der Text.</p>",
        author="Nele Tessmar",
        image=make_picture("bruecke.jpg", size=(120, 90)),
        image_alt="Eine Brücke",
        image_credit="Zeichnung: Haus",
    )

    page = client.get(article.get_absolute_url()).content.decode()

    assert "Die &lt;neue&gt; Brücke</h1>" in page
    assert "<h2>Zwischentitel</h2><p>Der Text.</p>" in page
    assert '<img src="/media/articles/bruecke.jpg" width="120" height="90" alt="Eine Brücke"' in page
    for text in (article.teaser, "Nele Tessmar", "Zeichnung: Haus", article.section.name):
        assert text in page


def test_a_text_that_was_never_cleaned_is_cleaned_on_the_page(client):
    article = make_article(body='<p>Text</p><script>steal()</script><img src="https://elsewhere.example/p.gif">')

    page = client.get(article.get_absolute_url()).content.decode()

    assert "<p>Text</p>" in page
    assert "steal" not in page
    assert "elsewhere.example" not in page


def test_the_sign_up_form_stands_under_every_article(client):
    page = client.get(make_article().get_absolute_url()).content.decode()

    assert "sign-up" in page


def test_a_section_shows_its_articles_in_pages(client):
    section = make_section()
    for number in range(25):
        make_article(section=section, headline=f"Artikel Nr. {number:02}", first_seen_at=hours_ago(number))

    first, second = (client.get(f"/ressort/{section.slug}/?seite={n}").content.decode() for n in (1, 2))

    assert "Artikel Nr. 00" in first
    assert "Artikel Nr. 24" not in first
    assert "Artikel Nr. 24" in second


def test_the_front_page_asks_the_database_little(client, django_assert_max_num_queries):
    for _ in range(12):
        make_article()

    with django_assert_max_num_queries(3):
        client.get("/")
