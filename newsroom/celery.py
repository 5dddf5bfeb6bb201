"""The Celery app: `celery -A newsroom.celery worker|beat`. What runs when stands in `settings.CELERY`."""

import gc
import os

from celery import Celery
from celery.signals import worker_process_init
from django.conf import settings
from kombu.transport import TRANSPORT_ALIASES

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "newsroom.settings")

TRANSPORT_ALIASES["filesystem"] = "newsroom.filebroker:Transport"

app = Celery("newsroom")
app.config_from_object(settings.CELERY)
app.autodiscover_tasks(["newsroom", "newsroom.mail", "subscriptions", "digests"])


@worker_process_init.connect
def spare_what_stays(**_arguments: object) -> None:
    """Have the garbage collector pass over all that was loaded: it stays as long as the worker."""
    gc.freeze()
