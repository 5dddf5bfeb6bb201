from django.apps import AppConfig
from django.core.checks import register
from django.utils.translation import gettext_lazy as _


class MailConfig(AppConfig):
    name = "newsroom.mail"
    label = "mail"
    verbose_name = _("Mail")

    def ready(self) -> None:
        from newsroom.mail import alarms, outbox
        from newsroom.mail.checks import check_mail

        register(check_mail)
        alarms.register("told", alarms.told)
        outbox.register(alarms.BEGUN, alarms.prepare_begun)
        outbox.register(alarms.OVER, alarms.prepare_over)
