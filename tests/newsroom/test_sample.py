import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
import time_machine
from django.core.files.storage import default_storage
from django.utils import timezone

from digests import compilation
from digests.models import Digest, DigestSchedule
from newsroom.articles.models import Article, Section
from newsroom.management.sample import loading
from newsroom.management.sample.texts import PICTURES, all_texts
from subscriptions.models import Newsletter

BERLIN = ZoneInfo("Europe/Berlin")
pytestmark = pytest.mark.django_db


def load_and_tick(now: datetime) -> Digest:
    with time_machine.travel(now, tick=False):
        loading.load(timezone.now())
        moment = timezone.now() + timedelta(minutes=1)
        compilation.make_due_digests(moment)
    return Digest.objects.get(newsletter__slug="der-tag", date=now.date())


@pytest.mark.parametrize("clock", ["00:00:30", "00:05:00", "05:59:00", "14:00:00", "23:58:00"])
@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-11-22"])
def test_whenever_it_is_loaded_a_digest_of_today_results(day, clock):
    digest = load_and_tick(datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=BERLIN))

    assert digest.state == Digest.State.SENDING
    assert digest.entries.count() >= 5
    assert {entry.article.published_at.astimezone(BERLIN).date() for entry in digest.entries.all()} >= {digest.date}


def test_every_following_day_has_a_digest_of_its_own_articles():
    start = datetime(2026, 11, 22, 14, tzinfo=BERLIN)
    load_and_tick(start)

    for days in range(1, 12):
        digest = load_and_tick(start + timedelta(days=days))
        assert digest.state == Digest.State.SENDING
        assert digest.entries.count() == 5


def test_a_digest_skipped_at_midnight_is_taken_up_when_the_new_days_articles_are_there():
    load_and_tick(datetime(2026, 11, 22, 14, tzinfo=BERLIN))
    midnight = datetime(2026, 11, 23, 0, 0, 20, tzinfo=BERLIN)
    compilation.make_due_digests(midnight)
    assert Digest.objects.get(date=midnight.date()).state == Digest.State.SKIPPED

    digest = load_and_tick(midnight + timedelta(seconds=5))

    assert digest.state == Digest.State.SENDING


def test_a_first_run_looks_like_three_days_of_publishing():
    now = datetime(2026, 11, 22, 14, tzinfo=BERLIN)

    count = loading.load(now)

    articles = Article.objects.published(now)
    days = {article.first_seen_at.astimezone(BERLIN).date() for article in articles}
    assert (count, articles.count()) == (15, 15)
    assert days == {now.date() - timedelta(days=days) for days in range(3)}
    assert articles.values("section").distinct().count() == Section.objects.count() == 5


def test_a_second_run_on_a_day_changes_nothing():
    now = datetime(2026, 11, 22, 14, tzinfo=BERLIN)
    loading.load(now)
    Newsletter.objects.filter(slug="der-tag").update(name="Der Abend")
    DigestSchedule.objects.update(minimum_articles=4)

    assert loading.load(now + timedelta(hours=9)) == 0

    assert Article.objects.count() == 15
    assert Newsletter.objects.get(slug="der-tag").name == "Der Abend"
    assert set(DigestSchedule.objects.values_list("minimum_articles", flat=True)) == {4}


def test_texts_come_again_only_when_all_have_been_used():
    now = datetime(2026, 11, 22, 14, tzinfo=BERLIN)

    for days in range(6):
        loading.load(now + timedelta(days=days))

    slugs = list(Article.objects.order_by("published_at", "id").values_list("slug", flat=True))
    again = [slug for slug in slugs if re.search(r"-2026-\d\d-\d\d$", slug)]
    assert len(slugs) == 40
    assert len(again) == 15
    assert set(again) & set(slugs[:25]) == set()


def test_pictures_are_among_the_media_with_their_size():
    loading.load(datetime(2026, 11, 22, 14, tzinfo=BERLIN))

    for article in Article.objects.all():
        assert default_storage.exists(article.image.name)
        assert article.image_width and article.image_height


@pytest.mark.parametrize("text", all_texts(), ids=lambda text: text.slug)
def test_a_sample_article_is_whole(text):
    words = re.sub(r"<[^>]+>", " ", text.body).split()

    assert len(words) >= 300
    assert "<h2>" in text.body
    assert (PICTURES / text.image).is_file()
    assert text.image_alt and text.image_credit and text.author
    assert text.section in loading.SECTIONS
