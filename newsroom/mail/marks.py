"""How a mail says which row it belongs to, so that whatever is reported of it leads back there, and nowhere else."""

from uuid import UUID

from django.conf import settings
from django.core.mail import EmailMessage

from newsroom.mail import verp

# Readers can see it in the source of some providers' mails: an id that says nothing, never an address.
KEY = "delivery"

# Anymail refuses metadata where the provider has none (anymail.md section 3); there a tag has to do.
_WITHOUT_METADATA = ("anymail.backends.mailersend.", "anymail.backends.postal.")


def mark(message: EmailMessage, uuid: UUID) -> None:
    """Give the mail its row's id in the way that its carrier sends back."""
    if settings.EMAIL_BACKEND.startswith(_WITHOUT_METADATA):
        message.tags = [str(uuid)]  # type: ignore[attr-defined]  # Anymail's own attributes
    elif settings.EMAIL_BACKEND.startswith("anymail."):
        message.metadata = {KEY: str(uuid)}  # type: ignore[attr-defined]
    verp.mark(message, uuid)
