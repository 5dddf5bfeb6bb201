from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class DigestsConfig(AppConfig):
    name = "digests"
    verbose_name = _("Digests")

    def ready(self) -> None:
        # Models exist only now.
        from digests import persons, release, retention, trial
        from newsroom.mail import outbox

        persons.register()
        retention.register()
        outbox.register(release.TEST_MAIL, trial.prepare)
