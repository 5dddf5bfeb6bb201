import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from newsroom.mail import alarms
from newsroom.mail.alarms import Alarm


def test_a_living_process_says_so_without_the_database(client):
    # Without the django_db mark any query fails.
    response = client.get("/health/live")

    assert (response.status_code, response.content) == (200, b"ok\n")
    assert "no-store" in response["Cache-Control"]


@pytest.mark.django_db
def test_a_process_that_can_work_is_ready(client):
    assert client.get("/health/ready").status_code == 200


@pytest.mark.django_db
def test_a_database_of_another_version_is_not_ready(client):
    MigrationRecorder.Migration.objects.filter(app="articles").delete()

    response = client.get("/health/ready")

    assert response.status_code == 503
    assert b"not applied" in response.content


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_gone_is_not_ready_and_nothing_of_its_address_is_told(client):
    connection.close()
    known = dict(connection.settings_dict)
    connection.settings_dict |= {"NAME": "/nowhere/secret-name", "HOST": "127.0.0.1", "PORT": "1"}
    try:
        response = client.get("/health/ready")
    finally:
        connection.close()
        connection.settings_dict.update(known)

    assert (response.status_code, response.content) == (503, b"database not reachable\n")


@pytest.mark.django_db
def test_an_alarm_is_named_to_who_watches_from_outside_but_not_told(client, monkeypatch):
    alarm = Alarm(key="late-3-2026-11-20", text="„Der Morgen“ hat die Leser nicht erreicht.")
    monkeypatch.setattr(alarms, "_sources", {"test": lambda now: [alarm]})

    response = client.get("/health/ready")

    assert (response.status_code, response.content) == (200, b"ok, but alarms: late-3-2026-11-20\n")
