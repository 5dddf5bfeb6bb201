from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class RetentionConfig(AppConfig):
    name = "newsroom.retention"
    label = "retention"
    verbose_name = _("Retention")

    def ready(self) -> None:
        from newsroom import persons
        from newsroom.mail import alarms
        from newsroom.retention import audit, site

        site.register()
        alarms.register("retention", audit.alarms)
        persons.register_without("counts of what was deleted", "retention.PurgeRun")
