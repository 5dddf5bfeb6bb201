from django.conf import settings
from django.contrib import admin
from django.urls import include, path, re_path

from newsroom import health, views

admin.site.site_header = admin.site.site_title = settings.SITE_NAME

urlpatterns = [
    path("", include("newsroom.articles.urls")),
    path("", include("subscriptions.urls")),
    path("", include("digests.urls")),
    path("datenschutz/", views.privacy, name="privacy"),
    path("impressum/", views.imprint, name="imprint"),
    path("robots.txt", views.robots),
    path("favicon.ico", views.favicon),
    path("health/live", health.live),
    path("health/ready", health.ready),
    path("admin/", admin.site.urls),
    re_path(r"^media/(?P<path>.+)$", views.media),
]

if settings.DEMO:
    urlpatterns += [path("postfach/", include("django_mail_preview.urls"))]

handler400 = "newsroom.errors.bad_request"
handler403 = "newsroom.errors.forbidden"
handler404 = "newsroom.errors.not_found"
handler500 = "newsroom.errors.server_error"
