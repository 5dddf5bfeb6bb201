from typing import Any

from django.core.management.base import BaseCommand

from newsroom.mail import outbox
from newsroom.mail.clock import database_now
from newsroom.mail.models import OutboxMail


class Command(BaseCommand):
    help = "Sends the service mails that are due, until none is left. Needs no broker."

    def handle(self, *args: Any, **options: Any) -> None:
        taken = 0
        while count := outbox.send_due(database_now()):
            taken += count
        waiting = OutboxMail.objects.filter(state=OutboxMail.State.PENDING).count()
        self.stdout.write(f"{taken} service mails taken up, {waiting} waiting.")
