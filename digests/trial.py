"""A test mail: one copy of a digest for the member of staff who asked, at the address of the account."""

from django.utils.translation import gettext as _

from digests import rendering
from digests.models import DigestTest
from newsroom.mail.addresses import InvalidAddress, canonicalise
from newsroom.mail.messages import make_message_id
from newsroom.mail.models import OutboxMail
from newsroom.mail.outbox import Prepared, Withheld


def prepare(mail: OutboxMail) -> Prepared | Withheld:
    """Build the mail when the relay is about to send it, from the digest and the address as they are then."""
    test = DigestTest.objects.select_related("digest__newsletter", "user").filter(uuid=mail.reference).first()
    if test is None or not test.user.is_active or not test.user.email:
        return Withheld(_("The account is gone or has no address."))
    try:
        address = canonicalise(test.user.email).canonical
    except InvalidAddress:
        return Withheld(_("The account's address is not a valid one."))
    return Prepared(rendering.build_test_message(test.digest, to=address, message_id=make_message_id(mail.uuid)))
