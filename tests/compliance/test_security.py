import pytest

from subscriptions.models import ConsentPayload, SignUp
from tests.compliance.post import CONFIRM, LEAVE, link_in
from tests.makers import make_newsletter
from tests.subscriptions.reading import a_reader, send_form

pytestmark = pytest.mark.django_db
ADDRESS = "leserin@leser.example"


def test_r43_public_pages_set_no_cookie_and_are_shut_to_frames_and_scripts(post):
    newsletter = make_newsletter()
    post.subscribe(ADDRESS, newsletter)
    links = [link_in(post.to(ADDRESS)[0], CONFIRM), link_in(post.issue(newsletter)[0], LEAVE)]

    for path in ["/", "/newsletter/", "/meine-daten/", "/datenschutz/", "/impressum/", *links]:
        answer = a_reader().get(path)
        policy = answer["Content-Security-Policy"]
        assert not answer.cookies and answer["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in policy and "'unsafe-" not in policy
        assert b"<script" not in answer.content


def test_r41_the_defaults_are_the_ones_kind_to_privacy(post):
    client = a_reader()
    client.defaults["HTTP_USER_AGENT"] = "Brieftaube/7"
    newsletter = make_newsletter()
    assert send_form(ADDRESS, newsletter, client=client).status_code == 303
    client.post(link_in(post.to(ADDRESS)[0], CONFIRM))
    [issue] = post.issue(newsletter)

    assert ConsentPayload.objects.count() == 3
    assert "Brieftaube" not in str([*ConsentPayload.objects.values(), *SignUp.objects.values()])
    assert 'width="1"' not in issue.html and "utm_" not in issue.html
