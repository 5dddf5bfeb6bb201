from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class SubscriptionsConfig(AppConfig):
    name = "subscriptions"
    verbose_name = _("Subscriptions")

    def ready(self) -> None:
        # Only now can modules that use models be imported.
        from newsroom.mail import alarms, gate, messages, outbox
        from subscriptions import (
            address_mails,
            anchoring,
            case_mails,
            cases,
            checks,  # noqa: F401
            erasures,
            links,
            mails,
            persons,
            retention,
        )

        mails.register()
        address_mails.register()
        case_mails.register()
        outbox.register(anchoring.KIND, anchoring.make_anchor_mail)
        messages.explain_by(links.why_url)
        persons.register()
        retention.register()
        alarms.register("cases", cases.alarms)
        gate.register("erasures", erasures.find_obstacle)
