from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone

from newsroom.articles.front import front_page
from newsroom.articles.models import Article, Section
from newsroom.caching import reading_page

ARTICLES_PER_PAGE = 24
MORE_OF_SECTION = 3


@reading_page
def front(request: HttpRequest) -> HttpResponse:
    return render(request, "articles/front.html", {"front": front_page(timezone.now())})


@reading_page
def section(request: HttpRequest, slug: str) -> HttpResponse:
    section = get_object_or_404(Section, slug=slug)
    articles = section.articles.published(timezone.now()).select_related("section").order_by("-published_at", "-id")
    page = Paginator(articles, ARTICLES_PER_PAGE).get_page(request.GET.get("seite"))
    return render(request, "articles/section.html", {"section": section, "page": page})


@reading_page
def article(request: HttpRequest, slug: str) -> HttpResponse:
    published = Article.objects.published(timezone.now()).select_related("section")
    article = get_object_or_404(published, slug=slug)
    more = published.filter(section=article.section).exclude(pk=article.pk).order_by("-published_at", "-id")
    return render(
        request,
        "articles/article.html",
        {"article": article, "section": article.section, "more": more[:MORE_OF_SECTION]},
    )
