from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from kombu import Connection

import newsroom.celery  # noqa: F401  (it says which transport `filesystem://` means)


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[Any]:
    folders = {"data_folder_in": tmp_path, "data_folder_out": tmp_path, "control_folder": tmp_path / "control"}
    with Connection("filesystem://", transport_options=folders) as connection:
        yield connection.channel()


def test_messages_come_out_whole_and_in_order(channel):
    for number in range(3):
        channel._put("fast", {"number": number})

    assert [channel._get("fast")["number"] for _number in range(3)] == [0, 1, 2]
    with pytest.raises(Empty):
        channel._get("fast")


def test_a_worker_that_looks_while_a_message_is_written_sees_nothing(channel):
    class Looking:
        def __json__(self) -> str:
            with pytest.raises(Empty):
                channel._get("fast")
            return "written"

    channel._put("fast", {"state": Looking()})

    assert "written" in str(channel._get("fast"))


def test_nothing_but_messages_stays_in_the_folder(channel, tmp_path):
    channel._put("fast", {})

    [message] = tmp_path.glob("*.*")
    assert message.name.endswith(".fast.msg")
