"""django-post-office as its documentation says: `send_many`, then what `send_queued_mail --processes=2` calls."""

import os

import django
from django.core.management import call_command

from tests.benchmarks.drivers import protocol
from tests.benchmarks.drivers.strangers import configure

PROCESSES = 2
AT_ONCE = 1000  # by default 100, which costs it more


def main() -> None:
    configure(
        INSTALLED_APPS=["post_office"],
        TEMPLATES=[
            {"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True},
            {"BACKEND": "post_office.template.backends.post_office.PostOfficeTemplates", "APP_DIRS": True}
            | {"NAME": "post_office", "OPTIONS": {}},
        ],
        POST_OFFICE={"BATCH_SIZE": AT_ONCE},
    )
    django.setup()
    call_command("migrate", verbosity=0)
    from post_office import mail, models  # type: ignore[import-not-found,unused-ignore]

    models.Email.objects.all().delete()
    payload, readers = protocol.payload(), protocol.readers()

    def mail_to(address: str) -> dict[str, object]:
        links = protocol.links(address)
        return {
            "recipients": [address],
            "subject": payload["subject"],
            "message": payload["text"],
            "html_message": payload["html"],
            "context": links,
            "headers": payload["headers"] | {"List-Unsubscribe": f"<{links['unsubscribe_url']}>"},
        }

    def send(first: int) -> None:
        chosen = readers[:first]
        for begin in range(0, len(chosen), AT_ONCE):
            mail.send_many([mail_to(address) for address in chosen[begin : begin + AT_ONCE]])
        mail.send_queued_mail_until_done(f"{os.environ['VAR_DIR']}/post_office", processes=PROCESSES)

    protocol.run(send)


if __name__ == "__main__":
    main()
