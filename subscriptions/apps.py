from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class SubscriptionsConfig(AppConfig):
    name = "subscriptions"
    verbose_name = _("Subscriptions")

    def ready(self) -> None:
        # Only now can modules that use models be imported.
        from newsroom.mail import gate, outbox
        from subscriptions import anchoring, case_mails, checks, erasures, mails, persons, retention  # noqa: F401

        mails.register()
        case_mails.register()
        outbox.register(anchoring.KIND, anchoring.make_anchor_mail)
        persons.register()
        retention.register()
        gate.register("erasures", erasures.find_obstacle)
