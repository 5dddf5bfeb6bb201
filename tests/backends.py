"""Mail backends that answer as providers do, in the process of the test."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend


class ScriptedBackend(BaseEmailBackend):
    """Accepts each message but where `script` raises, and remembers what it accepted."""

    accepted: ClassVar[list[EmailMessage]] = []
    calls: ClassVar[int] = 0
    script: ClassVar[Callable[[EmailMessage, int], None] | None] = None

    @classmethod
    def reset(cls, script: Callable[[EmailMessage, int], None] | None = None) -> None:
        cls.accepted, cls.calls = [], 0
        cls.script = staticmethod(script) if script else None

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        for message in email_messages:
            number = type(self).calls
            type(self).calls += 1
            if type(self).script:
                type(self).script(message, number)
            type(self).accepted.append(message)
        return len(email_messages)


def addresses() -> list[str]:
    """Whom the scripted backend accepted mail for, in order."""
    return [address for message in ScriptedBackend.accepted for address in message.to]
