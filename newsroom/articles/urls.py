from django.urls import path

from newsroom.articles import views

app_name = "articles"

urlpatterns = [
    path("", views.front, name="front"),
    path("artikel/<slug:slug>/", views.article, name="article"),
    path("ressort/<slug:slug>/", views.section, name="section"),
]
