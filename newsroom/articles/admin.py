from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from newsroom.articles import writing
from newsroom.articles.models import Article, Section
from newsroom.articles.pictures import as_published


class ArticleForm(forms.ModelForm):
    class Meta:
        model = Article
        fields = [
            "headline",
            "teaser",
            "body",
            "author",
            "image",
            "image_alt",
            "image_credit",
            "section",
            "importance",
            "slug",
            "state",
            "published_at",
        ]
        widgets = {
            "headline": forms.TextInput(attrs={"size": 80}),
            "image_alt": forms.TextInput(attrs={"size": 80}),
            "slug": forms.TextInput(attrs={"size": 80}),
            "teaser": forms.Textarea(attrs={"rows": 3, "cols": 80}),
            "body": forms.Textarea(attrs={"rows": 30, "cols": 100, "lang": "de", "spellcheck": "true"}),
        }

    def clean_image(self) -> object:
        image = self.cleaned_data["image"]
        return as_published(image) if "image" in self.changed_data and image else image

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        if data.get("image") and not data.get("image_alt"):
            self.add_error("image_alt", _("Say in a sentence what the picture shows."))
        return data


@admin.register(Section)
class SectionAdmin(admin.ModelAdmin):
    list_display = ["name", "slug", "position", "article_count"]
    list_editable = ["position"]
    prepopulated_fields = {"slug": ["name"]}
    search_fields = ["name"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Section]:
        sections: QuerySet[Section] = super().get_queryset(request)
        return sections.annotate(article_count=Count("articles"))

    @admin.display(description=_("articles"), ordering="article_count")
    def article_count(self, section: Section) -> int:
        count: int = section.article_count  # type: ignore[attr-defined]
        return count


@admin.register(Article)
class ArticleAdmin(admin.ModelAdmin):
    form = ArticleForm
    list_display = ["headline", "section", "state", "importance", "first_seen_at", "author"]
    list_filter = ["state", "section", "importance", "published_at"]
    list_select_related = ["section"]
    search_fields = ["headline", "teaser", "author", "slug"]
    date_hierarchy = "published_at"
    ordering = ["-published_at"]
    prepopulated_fields = {"slug": ["headline"]}
    autocomplete_fields = ["section"]
    readonly_fields = ["first_seen_at", "updated_at"]
    save_on_top = True
    fieldsets = [
        (None, {"fields": ["headline", "teaser", "body", "author"]}),
        (_("Picture"), {"fields": ["image", "image_alt", "image_credit"]}),
        (_("Place"), {"fields": ["section", "importance", "slug"]}),
        (_("Publication"), {"fields": ["state", "published_at", "first_seen_at", "updated_at"]}),
    ]

    def get_prepopulated_fields(self, request: HttpRequest, obj: Article | None = None) -> dict[str, Sequence[str]]:
        # The address of a published article stands in mails already sent.
        return {} if obj and obj.state == Article.State.PUBLISHED else {"slug": ["headline"]}

    def get_urls(self) -> list[URLPattern]:
        preview = self.admin_site.admin_view(self.preview)
        return [path("<int:pk>/preview/", preview, name="articles_article_preview"), *super().get_urls()]

    def preview(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Show an article as readers will see it, published or not."""
        article = get_object_or_404(Article.objects.select_related("section"), pk=pk)
        if not self.has_view_permission(request, article):
            raise PermissionDenied
        context = {"article": article, "section": article.section, "is_preview": True}
        return render(request, "articles/article.html", context)

    def view_on_site(self, article: Article) -> str:
        if Article.objects.published(timezone.now()).filter(pk=article.pk).exists():
            return article.get_absolute_url()
        return reverse("admin:articles_article_preview", args=[article.pk])

    def save_model(self, request: HttpRequest, obj: Article, form: forms.ModelForm, change: bool) -> None:
        writing.store(obj, now=timezone.now())
