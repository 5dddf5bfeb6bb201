from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from newsroom.management.sample import loading


class Command(BaseCommand):
    help = "Fill the sample newsroom, relative to now; repeatable, and on each new day it publishes fresh articles."

    def handle(self, *args: Any, **options: Any) -> None:
        count = loading.load(timezone.now())
        self.stdout.write(
            f"{count} sample articles published." if count else "Today's sample articles are there already."
        )
