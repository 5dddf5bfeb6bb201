from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from subscriptions import cases


class Command(BaseCommand):
    help = "Mail the officer about readers' cases that became soon due or overdue; once each, however often it runs."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(f"{cases.warn_of_deadlines(timezone.now())} cases warned of.")
