from datetime import datetime
from typing import Self

from django.db import models
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _


class Section(models.Model):
    name = models.CharField(_("name"), max_length=60, unique=True)
    slug = models.SlugField(_("short name"), unique=True)
    position = models.PositiveSmallIntegerField(_("position"), default=0)

    class Meta:
        verbose_name = _("section")
        verbose_name_plural = _("sections")
        ordering = ["position", "name"]

    def __str__(self) -> str:
        return self.name


class ArticleQuerySet(models.QuerySet["Article"]):
    def published(self, now: datetime | None = None) -> Self:
        return self.filter(state=Article.State.PUBLISHED, published_at__lte=now or timezone.now())

    def first_seen_within(self, start: datetime, end: datetime) -> Self:
        """Articles first seen at `start` or later and before `end`."""
        return self.filter(first_seen_at__gte=start, first_seen_at__lt=end)

    def in_reading_order(self) -> Self:
        return self.order_by("section__position", "section__name", "-importance", "-published_at", "-id")


class Article(models.Model):
    class State(models.TextChoices):
        DRAFT = "draft", _("draft")
        PUBLISHED = "published", _("published")

    class Importance(models.IntegerChoices):
        LOW = 1, _("low")
        NORMAL = 2, _("normal")
        LEAD = 3, _("lead story")

    section = models.ForeignKey(Section, models.PROTECT, related_name="articles", verbose_name=_("section"))
    headline = models.CharField(_("headline"), max_length=200)
    slug = models.SlugField(
        _("address"), max_length=120, unique=True, help_text=_("Part of the article's URL; keep it once published.")
    )
    teaser = models.CharField(
        _("teaser"), max_length=400, help_text=_("One or two sentences; they also stand in the digest.")
    )
    body = models.TextField(
        _("text"),
        help_text=_("HTML with paragraphs, subheadings (h2), lists, quotations and links; anything else is removed."),
    )
    author = models.CharField(_("author"), max_length=200)
    image = models.ImageField(
        _("picture"), upload_to="articles/", blank=True, width_field="image_width", height_field="image_height"
    )
    image_width = models.PositiveIntegerField(null=True, blank=True, editable=False)
    image_height = models.PositiveIntegerField(null=True, blank=True, editable=False)
    image_alt = models.CharField(
        _("picture description"), max_length=300, blank=True, help_text=_("For readers who cannot see the picture.")
    )
    image_credit = models.CharField(_("picture credit"), max_length=200, blank=True)
    importance = models.PositiveSmallIntegerField(_("importance"), choices=Importance, default=Importance.NORMAL)
    state = models.CharField(_("state"), max_length=10, choices=State, default=State.DRAFT)
    published_at = models.DateTimeField(_("published"), default=timezone.now)
    first_seen_at = models.DateTimeField(
        _("first seen"),
        default=timezone.now,
        help_text=_(
            "When Newsroom first had the article as published; a digest selects by it, so a late article is not lost."
        ),
    )
    updated_at = models.DateTimeField(_("changed"), auto_now=True)

    objects = ArticleQuerySet.as_manager()

    class Meta:
        verbose_name = _("article")
        verbose_name_plural = _("articles")
        ordering = ["-published_at"]
        indexes = [models.Index(fields=["state", "first_seen_at"], name="article_by_first_seen")]

    def __str__(self) -> str:
        return self.headline

    def get_absolute_url(self) -> str:
        return reverse("articles:article", args=[self.slug])
