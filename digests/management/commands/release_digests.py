from typing import Any

from django.core.management.base import BaseCommand
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from digests import restoring
from digests.clock import database_now


class Command(BaseCommand):
    help = "Lets digests go again after a database was restored or the clock was set right. Look at them before."

    def handle(self, *args: Any, **options: Any) -> None:
        if not restoring.find_obstacle():
            self.stdout.write(_("Nothing holds the digests."))
            return
        for doubt in restoring.release(now=database_now()):
            self.stdout.write(
                _("%(newsletter)s of %(date)s went out before and is skipped.")
                % {"newsletter": doubt.newsletter, "date": date_format(doubt.date)}
            )
        self.stdout.write(_("Digests go again. Those that were being sent are paused."))
