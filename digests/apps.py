from django.apps import AppConfig
from django.core.checks import register
from django.utils.translation import gettext_lazy as _


class DigestsConfig(AppConfig):
    name = "digests"
    verbose_name = _("Digests")

    def ready(self) -> None:
        # Models exist only now.
        from digests import checks, events, flight, persons, release, retention, trial, watching
        from newsroom.mail import alarms, outbox
        from newsroom.mail import flight as mail_in_flight

        register(checks.check_events)
        persons.register()
        retention.register()
        outbox.register(release.TEST_MAIL, trial.prepare)
        mail_in_flight.register("digests", flight.is_in_flight)
        alarms.register("digests", watching.find_alarms)
        alarms.register("events", events.find_alarms)
