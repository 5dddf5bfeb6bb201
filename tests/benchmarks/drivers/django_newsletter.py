"""django-newsletter as its documentation says: a submission, sent by what `manage.py submit_newsletter` calls."""

import os
import tempfile
from datetime import timedelta
from pathlib import Path

import django
from django.core.management import call_command

from tests.benchmarks.drivers import protocol
from tests.benchmarks.drivers.strangers import configure


def main() -> None:
    payload = protocol.payload()
    folder = Path(tempfile.mkdtemp(dir=os.environ["VAR_DIR"]))
    place = folder / "newsletter" / "message"
    place.mkdir(parents=True)
    (place / "message_subject.txt").write_text(payload["subject"])
    (place / "message.txt").write_text(payload["text"])
    (place / "message.html").write_text(payload["html"])
    configure(
        INSTALLED_APPS=["django.contrib.sites", "sorl.thumbnail", "newsletter"],
        ROOT_URLCONF="tests.benchmarks.drivers.django_newsletter_urls",
        SITE_ID=1,
        NEWSLETTER_THUMBNAIL="sorl-thumbnail",
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [folder], "APP_DIRS": True}],
    )
    django.setup()
    call_command("migrate", verbosity=0)
    from django.utils import timezone
    from newsletter import models  # type: ignore[import-not-found,unused-ignore]

    models.Newsletter.objects.all().delete()

    def make(first: int, slug: str) -> models.Message:
        newsletter = models.Newsletter.objects.create(
            title="Der Tag", slug=slug, email="newsletter@wochenblitz.example", sender="Wochenblitz", send_html=True
        )
        now = timezone.now()
        models.Subscription.objects.bulk_create(
            models.Subscription(newsletter=newsletter, email_field=address, subscribed=True, subscribe_date=now)
            for address in protocol.readers()[:first]
        )
        return models.Message.objects.create(newsletter=newsletter, title=payload["subject"], slug="heute")

    messages = {
        first: make(first, slug) for first, slug in ((protocol.WARM_UP, "probe"), (protocol.count(), "der-tag"))
    }

    def send(first: int) -> None:
        submission = models.Submission.from_message(messages[first])
        models.Submission.objects.filter(pk=submission.pk).update(
            prepared=True, publish_date=timezone.now() - timedelta(minutes=1)
        )
        models.Submission.submit_queue()

    protocol.run(send)


if __name__ == "__main__":
    main()
