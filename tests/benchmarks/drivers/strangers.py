"""Settings for packages that run in an environment of their own, on a database of their own beside the site's."""

import os
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings


def configure(**values: Any) -> None:
    url = urlsplit(os.environ["BENCH_DATABASE_URL"])
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": url.hostname,
        "PORT": url.port,
        "USER": url.username,
        "PASSWORD": url.password,
        "NAME": url.path.removeprefix("/"),
        "CONN_MAX_AGE": 60,
    }
    apps = ["django.contrib.contenttypes", "django.contrib.auth", *values.pop("INSTALLED_APPS")]
    settings.configure(
        DATABASES={"default": database},
        INSTALLED_APPS=apps,
        SECRET_KEY="a-key-for-the-benchmark-only",
        USE_TZ=True,
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=int(os.environ["EMAIL_PORT"]),
        DEFAULT_FROM_EMAIL="Wochenblitz <newsletter@wochenblitz.example>",
        **values,
    )
