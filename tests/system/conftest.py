"""What the tests with real processes stand on: a provider's process, workers, and how large a test is."""

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from django.core.management import call_command

from newsroom.management.guard import Guard
from tests.processes import Processes
from tests.torture.carrier import Carrier
from tests.torture.quickness import QUICK

LONGEST = ("test_killing", "test_withdrawing")


@pytest.fixture
def sized(request: pytest.FixtureRequest) -> Callable[[int, int], int]:
    """Say how many of something: the first number in `make test`, the second (or its fraction) in `make torture`."""
    fraction = request.config.getoption("--torture")

    def choose(short: int, long: int) -> int:
        return max(short, round(long * fraction)) if fraction else short

    return choose


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Return what the dice begin with: TORTURE_SEED, or another one each time; it stands beside the test's figure."""
    return int(os.environ.get("TORTURE_SEED", Random().randrange(10**6)))


@pytest.fixture
def figure(request: pytest.FixtureRequest, seed: int) -> Callable[[object], None]:
    """Print what a test has measured in one line, and keep it for the table at the end of `make torture`."""

    def print_figure(words: object) -> None:
        line = f"{words} (seed {seed})"
        print(line)
        request.node.user_properties.append(("figure", line))

    return print_figure


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have each process of a long run begin with one of the tests that take longest; each gets a piece of the list."""
    if config.getoption("--torture"):
        items.sort(key=lambda item: not item.path.name.startswith(LONGEST))
        count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
        items[:] = [item for number in range(count) for item in items[number::count]]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write each result down where `make torture` makes its table of it."""
    path = os.environ.get("TORTURE_RESULTS")
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # the process that hands out the tests hears of it, too
    if path and (report.when == "call" or report.outcome != "passed"):
        result = {
            "test": report.nodeid.rpartition("::")[2],
            "outcome": report.outcome,
            "seconds": report.duration,
            "figures": [value for name, value in report.user_properties if name == "figure"],
            "reason": report.longrepr[2] if isinstance(report.longrepr, tuple) else "",
        }
        with open(path, "a") as file:
            file.write(json.dumps(result) + "\n")


@pytest.fixture
def carrier(guard: Guard, tmp_path: Path, seed: int, settings: Any) -> Iterator[Callable[[str], Carrier]]:
    """Start a provider's process that speaks one of the APIs; the test's own process is pointed at it, too."""
    started = []

    def start(api: str, **values: Any) -> Carrier:
        carrier = Carrier(api, guard=guard, folder=tmp_path, seed=seed, **values)
        started.append(carrier)
        settings.EMAIL_BACKEND = carrier.environment()["EMAIL_BACKEND"]
        return carrier

    yield start
    for carrier in started:
        carrier.end()
        guard.forget(carrier.process)


@pytest.fixture
def site(processes: Processes) -> Processes:
    """Processes that look for work often enough for a test."""
    processes.env |= QUICK
    return processes


@pytest.fixture
def own_database(transactional_db: None, tmp_path: Path) -> Iterator[None]:
    """A copy of the empty test database, for tests that tear it down; the test's own connection leads there, too."""
    from django.db import connection

    from tests.torture import backups

    name = connection.settings_dict["NAME"]
    own = str(tmp_path / "own.sqlite3") if connection.vendor == "sqlite" else f"own_{os.getpid()}_{time.time_ns()}"
    connection.settings_dict["NAME"] = backups.copy_database(own)
    yield
    connection.close()
    connection.settings_dict["NAME"] = name
    backups.drop_database(own)


@pytest.fixture
def own_site(
    own_database: None, guard: Guard, tmp_path: Path, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Processes]:
    """The site's processes on a database of their own."""
    processes = Processes(guard=guard, folder=tmp_path, broker_url=broker_url)
    processes.env |= QUICK
    yield processes
    processes.end()


@pytest.fixture
def durable_postgres(transactional_db: None, guard: Guard, tmp_path: Path) -> Iterator[Any]:
    """A PostgreSQL that loses no commit when it crashes; the test's own connection leads there, too."""
    from tests.servers import Postgres
    from tests.torture import backups

    server = Postgres(guard, options=["synchronous_commit=on"])
    with backups.connected_to(server.url):
        call_command("migrate", verbosity=0)
        yield server
    server.crash()


@pytest.fixture
def durable_site(durable_postgres: Any, guard: Guard, tmp_path: Path, broker_url: str) -> Iterator[Processes]:
    """The site's processes on a PostgreSQL that loses no commit when it crashes."""
    processes = Processes(guard=guard, folder=tmp_path, broker_url=broker_url)
    processes.env |= QUICK
    yield processes
    processes.end()
