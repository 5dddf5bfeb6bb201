from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from digests import compilation, editing, entries
from digests.models import Digest, LeftOut
from newsroom.articles.models import Article
from tests.makers import make_article, make_digest, make_section

pytestmark = pytest.mark.django_db


@pytest.fixture
def editor():
    return User.objects.create_user("editor", is_staff=True)


def make_compiled(*headlines, section=None):
    """A digest compiled from real articles."""
    now = timezone.now()
    section = section or make_section()
    for number, headline in enumerate(headlines):
        make_article(section=section, headline=headline, first_seen_at=now - timedelta(minutes=number + 1))
    digest = make_digest(articles=0, state=Digest.State.PLANNED)
    compilation.compile_digest(digest, now=now)
    digest.refresh_from_db()
    return digest


def headlines(digest):
    return list(digest.entries.values_list("headline", flat=True))


def entry_of(digest, headline):
    return digest.entries.get(headline=headline)


def test_an_article_is_put_in_at_the_end_of_its_section(editor):
    first, second = make_section(position=1), make_section(position=2)
    make_article(section=second, headline="C", first_seen_at=timezone.now() - timedelta(hours=1))
    digest = make_compiled("A", section=first)
    late = make_article(section=first, headline="B")

    editing.add_article(digest, late, now=timezone.now(), actor=editor)

    assert headlines(digest) == ["A", "B", "C"]
    digest.refresh_from_db()
    assert "B" in digest.text


def test_an_article_is_not_put_in_twice(editor):
    digest = make_compiled("A")

    with pytest.raises(editing.CannotEdit):
        editing.add_article(digest, Article.objects.get(), now=timezone.now(), actor=editor)

    assert headlines(digest) == ["A"]


def test_what_is_taken_out_is_left_out_and_may_be_put_in_again(editor):
    digest = make_compiled("Brücke", "Hafen")

    editing.remove_entry(entry_of(digest, "Brücke"), now=timezone.now(), actor=editor)

    digest.refresh_from_db()
    assert headlines(digest) == ["Hafen"]
    assert "Brücke" not in digest.html + digest.text + digest.subject
    assert (LeftOut.objects.get().reason, LeftOut.objects.get().actor) == (LeftOut.Reason.STAFF, editor)
    assert not compilation.waiting_articles(digest.schedule, now=timezone.now()).exists()
    assert [article.headline for article in editing.addable_articles(digest, now=timezone.now())] == ["Brücke"]

    editing.add_article(digest, Article.objects.get(headline="Brücke"), now=timezone.now(), actor=editor)

    assert headlines(digest) == ["Hafen", "Brücke"]
    assert not LeftOut.objects.exists()


def test_the_last_article_stays(editor):
    digest = make_compiled("A")

    with pytest.raises(editing.CannotEdit):
        editing.remove_entry(digest.entries.get(), now=timezone.now(), actor=editor)

    assert headlines(digest) == ["A"]


@pytest.mark.parametrize(("to", "order"), [(1, "CABD"), (2, "ACBD"), (4, "ABDC"), (-3, "CABD"), (99, "ABDC")])
def test_an_entry_moves_to_any_position(to, order):
    digest = make_compiled("A", "B", "C", "D")

    editing.move_entry(entry_of(digest, "C"), to=to)

    assert "".join(headlines(digest)) == order
    assert list(digest.entries.values_list("position", flat=True)) == [1, 2, 3, 4]


def test_the_first_entry_makes_the_subject():
    digest = make_compiled("Brücke", "Hafen")

    editing.move_entry(entry_of(digest, "Hafen"), to=1)

    digest.refresh_from_db()
    assert digest.subject.startswith(f"{digest.newsletter.name}: Hafen")


def test_a_change_of_the_article_shows_and_is_taken_over_on_request(editor):
    digest = make_compiled("Alt")
    Article.objects.update(headline="Neu")

    assert entries.differences(digest.entries.get()) == ["headline"]
    assert headlines(digest) == ["Alt"]
    editing.take_over_changes(digest.entries.get(), now=timezone.now(), actor=editor)

    digest.refresh_from_db()
    assert entries.differences(digest.entries.get()) == []
    assert "Neu" in digest.html
    assert "Alt" not in digest.html


def test_an_article_that_was_taken_down_shows(editor):
    digest = make_compiled("Zurückgezogen")

    Article.objects.update(state="draft")

    assert entries.differences(digest.entries.get()) == ["state"]


@pytest.mark.parametrize("state", [state for state in Digest.State.values if state != "compiled"])
def test_nothing_changes_once_it_is_decided(state, editor):
    digest = make_compiled("A", "B")
    Digest.objects.update(state=state)
    entry, late, now = entry_of(digest, "A"), make_article(), timezone.now()

    for change in (
        lambda: editing.add_article(digest, late, now=now, actor=editor),
        lambda: editing.remove_entry(entry, now=now, actor=editor),
        lambda: editing.move_entry(entry, to=2),
        lambda: editing.take_over_changes(entry, now=now, actor=editor),
    ):
        with pytest.raises(editing.CannotEdit):
            change()

    assert headlines(digest) == ["A", "B"]


def test_every_change_stands_in_the_history_with_its_author(editor):
    digest = make_compiled("A", "B")

    editing.remove_entry(entry_of(digest, "A"), now=timezone.now(), actor=editor)

    change = digest.changes.last()
    assert change.actor == editor
    assert "A" in change.reason
