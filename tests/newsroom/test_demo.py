"""The demo as a stranger runs it: one command in the foreground, with children that never outlive it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from newsroom.management.guard import Guard, end_groups
from tests.processes import ROOT

LIMIT = 120
pytestmark = pytest.mark.sqlite  # it brings a database of its own


class Demo:
    """A demo on a `var` folder of the test's own."""

    def __init__(self, var: Path) -> None:
        self.var = var
        self.output_file = var.with_suffix(".out")
        self.process: subprocess.Popen[bytes] | None = None
        self.children: list[int] = []

    def start(self, *arguments: str) -> None:
        with self.output_file.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "demo", *arguments],
                cwd=ROOT,
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_until(lambda: "Ctrl-C ends it all" in self.output or self.has_ended, self)
        self.children = children_of(self.process.pid)

    @property
    def environment(self) -> dict[str, str]:
        """A stranger's: nothing of the run's settings but a folder of its own."""
        kept = ("PATH", "HOME", "LANG", "TMPDIR")
        return {name: os.environ[name] for name in kept if name in os.environ} | {
            "VAR_DIR": str(self.var),
            "PYTHONUNBUFFERED": "1",
        }

    @property
    def output(self) -> str:
        return self.output_file.read_text()

    @property
    def has_ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    @property
    def url(self) -> str:
        found = re.search(r"Site +(\S+)/\n", self.output)
        assert found, self.output
        return found[1]

    @property
    def password(self) -> str:
        found = re.search(r"password (\S+)\n", self.output)
        assert found, self.output
        return found[1]

    def signal(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(timeout=LIMIT)

    def has_left_nothing(self) -> bool:
        return not any(is_alive(child) for child in self.children)


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(tmp_path / "var")
    yield demo
    if demo.process and not demo.has_ended:
        demo.signal(signal.SIGTERM)
    end_groups(dict.fromkeys(demo.children, signal.SIGTERM), patience=5)


def test_it_serves_the_site_and_keeps_everything_for_the_next_time(demo):
    demo.start()
    first_password = demo.password
    for path in ("/", "/newsletter/", "/postfach/", "/admin/login/", "/health/ready"):
        assert fetch(demo.url + path) == 200
    assert demo.signal(signal.SIGINT) == 0
    assert demo.has_left_nothing()

    demo.start()

    assert demo.password == first_password
    assert "Collecting" not in demo.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_every_polite_signal_ends_it_in_order(demo, number):
    demo.start()

    code = demo.signal(number)

    assert code == 0
    assert demo.has_left_nothing()
    assert "Everything is kept" in demo.output


def test_it_leaves_no_process_when_it_is_killed(demo):
    demo.start()

    demo.signal(signal.SIGKILL)

    wait_until(demo.has_left_nothing, demo)


def test_a_child_that_dies_ends_it_with_the_reason(demo):
    demo.start()
    worker = next(child for child in demo.children if "newsroom.celery worker" in command_of(child))

    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: demo.has_ended, demo)

    assert demo.process.returncode == 1
    assert "The worker was killed by SIGKILL" in demo.output
    assert "worker.log ends with" in demo.output
    assert demo.has_left_nothing()


def test_a_taken_port_is_said_and_another_one_taken(demo):
    with socket.create_server(("127.0.0.1", 0)) as occupant:
        port = occupant.getsockname()[1]

        demo.start(f"--port={port}")

        assert f"Port {port} is taken" in demo.output
        assert fetch(demo.url + "/health/live") == 200
        assert demo.url != f"http://127.0.0.1:{port}"


def test_a_second_one_on_the_same_folder_says_so_and_ends(demo):
    demo.start()

    second = subprocess.run(
        [sys.executable, "manage.py", "demo"],
        cwd=ROOT,
        env=demo.environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )

    assert second.returncode == 1
    assert f"running already: {demo.url}/" in second.stderr


@pytest.mark.django_db
def test_outside_the_demo_there_is_no_mailbox(client):
    assert client.get("/postfach/").status_code == 404


def test_a_guard_ends_what_it_watches_when_its_starter_is_gone(tmp_path):
    folder = tmp_path / "left behind"
    folder.mkdir()
    program = """
import json, os, subprocess, sys
from pathlib import Path
from newsroom.management.guard import Guard
quiet = {"start_new_session": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
guard = Guard()
guard.remove_at_end(Path(sys.argv[1]))
sleepers = [subprocess.Popen(["sleep", "60"], **quiet) for _ in range(2)]
for sleeper in sleepers:
    guard.watch(sleeper)
guard.forget(sleepers[1])
print(json.dumps([sleeper.pid for sleeper in sleepers]), flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    watched, forgotten = json.loads(done.stdout)

    wait_until(lambda: not is_alive(watched) and not folder.exists())

    assert is_alive(forgotten)
    end_groups({forgotten: signal.SIGTERM})


def test_a_guard_kills_what_does_not_end_when_asked():
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE, start_new_session=True)
    process.stdout.readline()

    end_groups({process.pid: signal.SIGTERM}, patience=0.2)

    assert process.wait(timeout=5) == -signal.SIGKILL
    process.stdout.close()


def test_a_guard_closes_even_if_nothing_was_entrusted():
    Guard().close()


def wait_until(condition: Callable[[], bool], demo: Demo | None = None) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, demo.output if demo else "Waited in vain."
        time.sleep(0.1)


def children_of(pid: int) -> list[int]:
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listing.splitlines()]
    direct = [child for child, parent in pairs if parent == pid]
    return direct + [grandchild for child in direct for grandchild in children_of(child)]


def command_of(pid: int) -> str:
    command = ["ps", "-o", "args=", "-p", str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def is_alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def fetch(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
