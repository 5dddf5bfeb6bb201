"""django-newsletter as a web site, as its documentation says, but for what would only slow it down.

Its CSRF middleware is left out, and the mail it sends within the request is thrown away.
"""

import sys

import django
from django.core.wsgi import get_wsgi_application

from tests.benchmarks.drivers.strangers import configure

configure(
    INSTALLED_APPS=["django.contrib.sessions", "django.contrib.sites", "sorl.thumbnail", "newsletter"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    ROOT_URLCONF="tests.benchmarks.drivers.django_newsletter_urls",
    SITE_ID=1,
    ALLOWED_HOSTS=["*"],
    NEWSLETTER_THUMBNAIL="sorl-thumbnail",
    EMAIL_BACKEND="django.core.mail.backends.dummy.EmailBackend",
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
)


def make() -> None:
    """Make the tables and the newsletter."""
    django.setup()
    from django.contrib.sites.models import Site
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from newsletter.models import Newsletter  # type: ignore[import-not-found,unused-ignore]

    newsletter = Newsletter.objects.create(
        title="Der Tag", slug="der-tag", email="newsletter@wochenblitz.example", sender="Wochenblitz", send_html=True
    )
    newsletter.site.set(Site.objects.all())


if sys.argv[1:] == ["make"]:
    make()
else:
    application = get_wsgi_application()
