"""What every page's template knows about the site."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest

from newsroom.mail import gate


def site(request: HttpRequest) -> dict[str, Any]:
    return {
        "site_name": settings.SITE_NAME,
        "site_url": settings.SITE_URL,
        "publisher": settings.PUBLISHER,
        "is_demo": settings.DEMO,
        "find_mail_obstacle": gate.find_obstacle,
    }
