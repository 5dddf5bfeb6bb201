from django.urls import path

from digests import views

app_name = "digests"

urlpatterns = [path("newsletter/ausgabe/<uuid:uuid>/", views.web_version, name="web_version")]
