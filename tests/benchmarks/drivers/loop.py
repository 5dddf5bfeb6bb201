"""What one would write first: a loop over the readers that builds and sends one message each, over one connection."""

import django
from django.core.mail import EmailMultiAlternatives, get_connection
from django.template import Context, Template

from tests.benchmarks.drivers import protocol


class Copies:
    """Builds each reader's copy from two templates in which the articles stand already."""

    def __init__(self) -> None:
        self._payload = protocol.payload()
        self._text, self._html = Template(self._payload["text"]), Template(self._payload["html"])

    def build(self, address: str) -> EmailMultiAlternatives:
        links = protocol.links(address)
        message = EmailMultiAlternatives(
            subject=self._payload["subject"],
            body=self._text.render(Context(links)),
            from_email=self._payload["sender"],
            to=[address],
            headers=self._payload["headers"] | {"List-Unsubscribe": f"<{links['unsubscribe_url']}>"},
        )
        message.attach_alternative(self._html.render(Context(links)), "text/html")
        return message


def main() -> None:
    django.setup()
    from subscriptions.models import Subscriber

    copies = Copies()

    def send(first: int) -> None:
        connection = get_connection()
        connection.open()
        for address in Subscriber.objects.order_by("pk").values_list("address", flat=True)[:first].iterator():
            connection.send_messages([copies.build(address)])
        connection.close()

    protocol.run(send)


if __name__ == "__main__":
    main()
