"""The demo's mailbox at /postfach/: whatever the site sends, on a page of its own."""

from django.conf import settings
from django.http import HttpRequest


def is_demo(request: HttpRequest) -> bool:
    """Say whether the mailbox may be seen; outside the demo its pages do not exist."""
    return bool(settings.DEMO)
