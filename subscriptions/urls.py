from django.urls import path

from subscriptions.views import choosing, explaining, leaving, moving, rights, signing_up

app_name = "subscriptions"

urlpatterns = [
    path("newsletter/", signing_up.sign_up, name="sign_up"),
    path("newsletter/fast-geschafft/", signing_up.signed_up, name="signed_up"),
    path("newsletter/bestaetigen/<str:token>/", signing_up.confirm, name="confirm"),
    path("newsletter/bestaetigt/", signing_up.confirmed, name="confirmed"),
    path("newsletter/abmelden/<str:token>/", leaving.unsubscribe, name="unsubscribe"),
    path("newsletter/einstellungen/<str:token>/", choosing.preferences, name="preferences"),
    path("newsletter/warum/", explaining.general, name="why_in_general"),
    path("newsletter/warum/<str:token>/", explaining.explain, name="why"),
    path("meine-daten/", rights.ask, name="ask_rights"),
    path("meine-daten/angefordert/", rights.asked, name="rights_asked"),
    path("meine-daten/newsletter/", rights.change_newsletters, name="change_newsletters"),
    path("meine-daten/export/", rights.export, name="export"),
    path("meine-daten/loeschen/", rights.erase, name="erase"),
    path("meine-daten/adresse/", rights.change_address, name="change_address"),
    path("meine-daten/adresse/geaendert/", moving.address_changed, name="address_changed"),
    path("meine-daten/adresse/<str:token>/", moving.confirm_address, name="confirm_address"),
    path("meine-daten/<str:token>/", rights.rights, name="rights"),
]
