import pytest
from django.core.exceptions import SuspiciousOperation
from django.test import Client, RequestFactory
from django.urls import path

from newsroom import errors, urls


@pytest.mark.parametrize(
    ("answer", "status"),
    [(errors.bad_request, 400), (errors.forbidden, 403), (errors.server_error, 500), (errors.csrf_failure, 403)],
)
def test_what_goes_wrong_is_told_in_the_sites_design_without_the_database(answer, status):
    # Without the django_db mark any query fails.
    response = answer(RequestFactory().get("/"))

    page = response.content.decode()
    assert response.status_code == status
    assert "site.css" in page
    assert "/impressum/" in page
    assert response["Cache-Control"] == "no-store"


def test_an_unknown_host_is_told_so_without_a_trace():
    response = Client(headers={"host": "evil.example"}).get("/")

    assert response.status_code == 400
    assert b"Traceback" not in response.content
    assert b"evil.example" not in response.content


@pytest.mark.django_db
def test_an_unknown_address_leads_back_to_the_front_page(client):
    response = client.get("/gibt-es-nicht/")

    page = response.content.decode()
    assert response.status_code == 404
    assert '<meta name="robots" content="noindex">' in page
    assert 'href="/"' in page
    assert "gibt-es-nicht" not in page


@pytest.mark.django_db
def test_a_form_of_the_admin_without_its_token_is_refused_in_our_design():
    response = Client(enforce_csrf_checks=True).post("/admin/login/", {"username": "x", "password": "y"})

    assert response.status_code == 403
    assert "site.css" in response.content.decode()


def break_down(request):
    raise RuntimeError("secret of the house")


def smell(request):
    raise SuspiciousOperation("secret of the house")


urlpatterns = [path("kaputt/", break_down), path("faul/", smell), *urls.urlpatterns]
handler400, handler500 = urls.handler400, urls.handler500


@pytest.mark.urls(__name__)
@pytest.mark.parametrize(("address", "status"), [("/kaputt/", 500), ("/faul/", 400)])
def test_a_page_that_breaks_down_tells_nothing_of_the_reason(address, status):
    response = Client(raise_request_exception=False).get(address)

    assert response.status_code == status
    assert b"secret" not in response.content
    assert b"site.css" in response.content
