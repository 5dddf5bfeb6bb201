"""The broker of files that the demo uses, with messages that appear whole or not at all.

Kombu's own writes a message under its final name: a worker that looks at that moment reads an empty one and dies of it.
"""

from pathlib import Path
from time import time_ns
from typing import Any
from uuid import uuid4

from kombu.exceptions import ChannelError
from kombu.transport import filesystem
from kombu.utils.json import dumps


class Channel(filesystem.Channel):
    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Write the message under another name and rename it; the time in the name keeps messages in order."""
        message = Path(self.data_folder_out) / f"{time_ns()}_{uuid4()}.{queue}.msg"
        unfinished = message.with_name(f"{message.name}.unfinished")
        text = dumps(payload)
        try:
            unfinished.write_text(text)
            unfinished.rename(message)
        except OSError as error:
            raise ChannelError(f"Cannot write {message}") from error


class Transport(filesystem.Transport):
    Channel = Channel
