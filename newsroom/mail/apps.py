from django.apps import AppConfig
from django.core.checks import register
from django.utils.translation import gettext_lazy as _


class MailConfig(AppConfig):
    name = "newsroom.mail"
    label = "mail"
    verbose_name = _("Mail")

    def ready(self) -> None:
        from newsroom.mail.checks import check_mail

        register(check_mail)
