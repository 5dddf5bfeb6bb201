from typing import Any

from django.core.management.base import BaseCommand

from digests import audience, compilation, restoring
from digests.clock import database_now


class Command(BaseCommand):
    help = "Makes the digests that are due and adds latecomers, as the beat entry of this name does every minute."

    def handle(self, *args: Any, **options: Any) -> None:
        now = database_now()
        if not restoring.count(now):
            self.stdout.write(restoring.find_obstacle())
            return
        for digest in compilation.make_due_digests(now):
            self.stdout.write(f"{digest}: {digest.get_state_display()} {digest.state_reason}".rstrip())
        if latecomers := audience.add_latecomers(now):
            self.stdout.write(f"{latecomers} latecomers")
