from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from newsroom.tasks import purge_all


class Command(BaseCommand):
    help = "Delete everything whose retention has ended, as the settings and the privacy page state it."

    def handle(self, *args: Any, **options: Any) -> None:
        for name, count in purge_all(timezone.now()).items():
            self.stdout.write(f"{name}: {count}")
