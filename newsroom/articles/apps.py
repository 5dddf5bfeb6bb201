from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from newsroom import persons


class ArticlesConfig(AppConfig):
    name = "newsroom.articles"
    label = "articles"
    verbose_name = _("Articles")

    def ready(self) -> None:
        persons.register_without("what is published for everyone", "articles.Article", "articles.Section")
