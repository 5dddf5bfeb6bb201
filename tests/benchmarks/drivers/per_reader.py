"""What is often advised: one Celery task per reader, which looks the reader up, builds the message and sends it."""

import os
from functools import cache

import django
from celery import Celery

from tests.benchmarks.drivers import protocol
from tests.benchmarks.drivers.loop import Copies

app = Celery("per_reader", broker=os.environ["BROKER_URL"])
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)
copies = cache(Copies)


@app.task(name="send")
def send(reader_id: int) -> None:
    from subscriptions.models import Subscriber

    reader = Subscriber.objects.get(pk=reader_id)
    copies().build(reader.address).send()


def enqueue(first: int) -> None:
    from subscriptions.models import Subscriber

    for reader_id in Subscriber.objects.order_by("pk").values_list("pk", flat=True)[:first].iterator():
        send.delay(reader_id)


if __name__ == "__main__":
    django.setup()
    protocol.run(enqueue)
