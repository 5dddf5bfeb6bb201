from django.urls import path, re_path

from digests import views
from digests.webhooks.views import receive

app_name = "digests"

urlpatterns = [
    path("newsletter/ausgabe/<uuid:uuid>/", views.web_version, name="web_version"),
    # A provider does not follow a redirect, so the last slash may be missing.
    re_path(r"^webhooks/(?P<esp>[a-z_]{1,20})/tracking/?$", receive, name="webhook"),
]
