"""The drill an operator hopes never to need: the database of yesterday is back, and with it whom today erased."""

import time
from datetime import time as time_of_day

from digests.models import Digest, HighWater
from newsroom.mail.models import OutboxMail
from subscriptions.models import Subscriber
from tests.makers import make_article, make_newsletter, make_schedule
from tests.torture import backups, reader
from tests.torture.harness import hurry, make_readers


def test_r33_a_restored_backup_mails_nobody_until_the_erasures_are_replayed_and_the_erased_never_again(
    own_site, carrier, sized, tmp_path, figure
):
    site, provider = own_site, carrier("smtp")
    site.env |= provider.environment()
    newsletter = make_newsletter()
    make_article()
    addresses = make_readers(newsletter, sized(40, 1000))
    erased, staying = addresses[:10], addresses[10:]
    url = site.web()
    reader.sign_up(url, "wartet@leser.example", newsletter)  # its mail waits in the outbox, for nobody works yet

    backup = tmp_path / "backup"
    backups.back_up(backup)
    count_before = counted()
    workers = [site.worker(concurrency=2), site.beat()]
    for token in reader.open_rights_page(site, url, provider, erased).values():
        reader.erase(url, token)
    assert not Subscriber.objects.filter(address__in=erased).exists()
    site.wait_until(lambda: counted() > count_before)  # a backup younger than the last count would not be noticed
    for process in workers:
        site.stop(process)
    site.end()
    mails_before = len(provider.entries("taken"))

    backups.restore(backup)
    assert Subscriber.objects.filter(address__in=erased).count() == 10
    make_schedule(newsletter, local_time=time_of_day(0, 0))  # a digest is due at once
    site.worker("worker-after", concurrency=2)
    site.beat("beat-after")
    time.sleep(5)
    assert OutboxMail.objects.filter(state="pending").exists()
    assert len(provider.entries("taken")) == mails_before

    assert site.manage("replay_erasures").strip() == "Erased again: 10"
    site.wait_until(lambda: provider.links_for("wartet@leser.example"))
    assert not provider.digests  # a person has to look first at what went out since the backup
    site.manage("release_digests")
    site.wait_until(is_finished, timeout=120)

    after = {entry["to"] for entry in provider.entries("taken")[mails_before:]}
    figure(
        f"restored backup: 0 mails in 5 s with a digest and an outbox due; after replay and release {len(staying)} of"
        f" {len(addresses)} readers mailed, {len(after & set(erased))} of the 10 erased ones"
    )
    assert after == {*staying, "wartet@leser.example"}
    assert set(provider.mailed.values()) == {1}


def counted():
    row = HighWater.objects.first()
    return row.number if row else 0


def is_finished():
    hurry()
    return Digest.objects.filter(state="finished").exists()
