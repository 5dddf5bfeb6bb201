from django import template
from django.db.models import QuerySet
from django.template.context import Context
from django.utils.safestring import SafeString, mark_safe

from newsroom.articles.models import Section
from newsroom.articles.writing import clean_body

register = template.Library()


@register.filter
def as_text(body: str) -> SafeString:
    """Return an article's text ready for the page; it is cleaned here too, whoever wrote the row."""
    return mark_safe(clean_body(body))  # noqa: S308 (cleaning is what makes it safe)


@register.inclusion_tag("articles/_section_nav.html", takes_context=True)
def section_nav(context: Context) -> dict[str, QuerySet[Section] | Section | None]:
    return {"sections": Section.objects.all(), "current": context.get("section")}
