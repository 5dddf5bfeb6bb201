import pytest
from django.contrib.admin.models import LogEntry
from django.core.files.uploadedfile import SimpleUploadedFile

from newsroom.articles.models import Article
from tests.makers import make_article, make_digest, make_picture, make_section

pytestmark = pytest.mark.django_db


def form_data(**values):
    defaults = {
        "headline": "Rat beschließt Neubau",
        "teaser": "Nach vier Jahren.",
        "body": "<p>Text</p>",
        "author": "N. Tessmar",
        "slug": "rat-beschliesst-neubau",
        "importance": 2,
        "state": "published",
        "image_alt": "",
        "image_credit": "",
        "published_at_0": "2026-07-01",
        "published_at_1": "07:00:00",
    }
    return defaults | values


def test_what_staff_write_is_cleaned_before_it_is_kept(admin_client):
    data = form_data(section=make_section().pk, body="<p>Text</p><script>steal()</script>")

    response = admin_client.post("/admin/articles/article/add/", data)

    assert response.status_code == 302
    assert Article.objects.get().body == "<p>Text</p>"


def test_a_picture_is_published_small_and_without_what_the_camera_wrote(admin_client, settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    data = form_data(
        section=make_section().pk, image=make_picture(size=(4000, 3000), camera="Camera of Erika"), image_alt="Brücke"
    )

    admin_client.post("/admin/articles/article/add/", data)

    article = Article.objects.get()
    assert (article.image_width, article.image_height) == (1600, 1200)
    with article.image.open() as file:
        assert b"Erika" not in file.read()
    assert article.image.name.endswith(".jpg")


@pytest.mark.parametrize(
    ("uploaded", "stored"),
    [("Rathaus Süd.png", "articles/rathaus-sud.jpg"), ("лауэнфельд" * 8 + ".jpg", "articles/picture.jpg")],
)
def test_a_pictures_address_is_plain_and_short(uploaded, stored, admin_client, settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    data = form_data(section=make_section().pk, image=make_picture(uploaded), image_alt="Das Rathaus")

    admin_client.post("/admin/articles/article/add/", data)

    assert Article.objects.get().image.name == stored


def test_a_file_that_is_no_picture_is_refused(admin_client, settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    data = form_data(section=make_section().pk, image=SimpleUploadedFile("bild.jpg", b"<svg onload='steal()'>"))

    response = admin_client.post("/admin/articles/article/add/", data)

    assert response.status_code == 200
    assert response.context["adminform"].form.errors.keys() == {"image"}
    assert not Article.objects.exists()


def test_a_picture_needs_words_for_those_who_cannot_see_it(admin_client, settings, tmp_path):
    settings.MEDIA_ROOT = tmp_path
    data = form_data(section=make_section().pk, image=make_picture(size=(80, 60)))

    response = admin_client.post("/admin/articles/article/add/", data)

    assert response.context["adminform"].form.errors.keys() == {"image_alt"}


def test_an_article_that_stands_in_a_digest_cannot_be_deleted(admin_client):
    article = make_digest(articles=1).entries.get().article

    admin_client.post(f"/admin/articles/article/{article.pk}/delete/", {"post": "yes"})

    assert Article.objects.filter(pk=article.pk).exists()
    assert not LogEntry.objects.filter(object_id=article.pk).exists()


def test_the_list_is_searched_and_filtered(admin_client):
    make_article(headline="Die Orgel klingt wieder")
    make_article(headline="Der Hafen wächst", state=Article.State.DRAFT)

    found = admin_client.get("/admin/articles/article/?q=Orgel&state__exact=published").content.decode()

    assert "Die Orgel klingt wieder" in found
    assert "Der Hafen wächst" not in found


def test_staff_see_a_draft_as_readers_will(admin_client, client):
    article = make_article(state=Article.State.DRAFT, headline="Noch im Werden")
    address = f"/admin/articles/article/{article.pk}/preview/"

    page = admin_client.get(address).content.decode()

    assert address in admin_client.get(f"/admin/articles/article/{article.pk}/change/").content.decode()
    assert "Noch im Werden</h1>" in page
    assert "noindex" in page
    assert client.get(address).status_code == 302
