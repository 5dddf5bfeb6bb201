"""A run of the suite has a folder, a database and settings of its own; nothing of the machine's reaches it.

Plain `pytest` runs on SQLite, `pytest --pg` on PostgreSQL (a server of our own, or the one TEST_DATABASE_URL names).
"""

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from newsroom.management.guard import Guard
from tests.processes import Processes
from tests.servers import start_postgres, start_valkey

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {
    "ENV_FILE": os.devnull,
    "SITE_URL": "http://localhost:8000",
    "DEBUG": "false",
    "DEMO": "false",
    "SECRET_KEY": "a-key-for-tests-only-0123456789-0123456789-0123456789",
    "SUPPRESSION_KEY": "another-key-for-tests-only-0123456789-0123456789",
    "PUBLISHER_NAME": "Wochenblitz Verlag GmbH",
    "PUBLISHER_STREET": "Musterstraße 1",
    "PUBLISHER_CITY": "12345 Lauenfeld",
    "PUBLISHER_EMAIL": "redaktion@wochenblitz.example",
    "PUBLISHER_PHONE": "+49 30 000000",
    "PUBLISHER_REPRESENTED_BY": "Maria Muster (Geschäftsführerin)",
    "PUBLISHER_REGISTER": "Amtsgericht Lauenfeld, HRB 00000",
    "PUBLISHER_VAT_ID": "DE000000000",
    "PUBLISHER_RESPONSIBLE_EDITOR": "Maria Muster, Anschrift wie oben",
    "DPO_EMAIL": "datenschutz@wochenblitz.example",
    "FORM_MINIMUM_FILL_SECONDS": "0",
}

guard_key = pytest.StashKey[Guard]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("newsroom")
    group.addoption("--pg", action="store_true", help="run on PostgreSQL instead of SQLite")
    group.addoption(
        "--torture", nargs="?", const=1.0, type=float, help="run the long fault tests, at full size or a fraction of it"
    )
    group.addoption("--no-skips", action="store_true", help="fail when a test is skipped, as CI does")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "postgresql: runs only with --pg")
    config.addinivalue_line("markers", "sqlite: runs only without --pg")
    config.addinivalue_line("markers", "torture: runs only with --torture")
    if settings.configured:
        raise pytest.UsageError("Unset DJANGO_SETTINGS_MODULE: a run brings its own settings.")
    guard = config.stash[guard_key] = Guard()
    folder = Path(tempfile.mkdtemp(prefix="newsroom-tests-"))
    guard.remove_at_end(folder)
    database_url = _database_url(config, guard, folder)
    _set_environment(VAR_DIR=str(folder), DATABASE_URL=database_url)
    _load_settings()
    if database_url.startswith("sqlite"):
        # A file, where Django would take memory: other processes and threads have to see it.
        settings.DATABASES["default"]["TEST"] = {"NAME": str(folder / "test.sqlite3")}


def pytest_unconfigure(config: pytest.Config) -> None:
    if guard := config.stash.get(guard_key, None):
        guard.close()


def _database_url(config: pytest.Config, guard: Guard, folder: Path) -> str:
    if not config.getoption("--pg"):
        return f"sqlite:///{folder / 'newsroom.sqlite3'}"
    if "TEST_DATABASE_URL" not in os.environ:
        os.environ["TEST_DATABASE_URL"] = start_postgres(guard)  # xdist's workers find it there
    return os.environ["TEST_DATABASE_URL"]


def _set_environment(**run: str) -> None:
    """Take away every variable the settings know, whoever set it, and put in the run's own."""
    documented = re.findall(r"^#? ?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    for name in list(os.environ):
        if name in documented or name.startswith("ANYMAIL_"):
            del os.environ[name]
    os.environ.update(ENVIRONMENT | run)


def _load_settings() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "newsroom.settings"
    assert settings.DATABASES
    # Pages name static files as they are; only the process tests collect them.
    settings.STATIC_ROOT.mkdir(exist_ok=True)
    settings.STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    # The default is slow on purpose, nearly half a second for each account a test makes; no test is about that.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    del os.environ["DJANGO_SETTINGS_MODULE"]  # a run of xdist's would find it, and load settings before its time


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    other = "sqlite" if config.getoption("--pg") else "postgresql"
    others = {other} if config.getoption("--torture") else {other, "torture"}
    deselected = [item for item in items if any(item.get_closest_marker(name) for name in others)]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item not in deselected]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter and session.config.getoption("--no-skips") and reporter.stats.get("skipped"):
        reporter.write_line("\nA test was skipped, and --no-skips is set.", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session", autouse=True)
def _flush_through_the_door() -> Iterator[None]:
    """Let the teardown of transactional tests empty the tables that refuse deletion."""
    from django.test import TransactionTestCase

    from subscriptions import ledger

    original = TransactionTestCase._fixture_teardown

    def teardown(test: TransactionTestCase) -> None:
        with ledger.door():
            original(test)

    TransactionTestCase._fixture_teardown = teardown
    yield
    TransactionTestCase._fixture_teardown = original


@pytest.fixture(autouse=True)
def _fresh_mail_and_cache() -> None:
    """Counters and mails of one test are none of the next one's business."""
    from django.core.cache import cache

    cache.clear()
    Path(settings.ERASURE_JOURNAL).unlink(missing_ok=True)
    Path(settings.HIGH_WATER_MARK).unlink(missing_ok=True)


@pytest.fixture(scope="session")
def guard(request: pytest.FixtureRequest) -> Guard:
    """What ends the run's processes, however the run ends."""
    return request.config.stash[guard_key]


@pytest.fixture(scope="session")
def broker_url(request: pytest.FixtureRequest) -> str:
    """A Redis-protocol broker: TEST_BROKER_URL, or a server of our own; every test that uses it empties it first."""
    return os.environ.get("TEST_BROKER_URL") or start_valkey(request.config.stash[guard_key])


@pytest.fixture
def processes(
    request: pytest.FixtureRequest, transactional_db: None, broker_url: str, tmp_path: Path
) -> Iterator[Processes]:
    """Real processes of the site on the test's database, an empty broker and a folder of their own; ended after it."""
    processes = Processes(guard=request.config.stash[guard_key], folder=tmp_path, broker_url=broker_url)
    if request.config.getoption("--torture"):
        processes.patience = 5.0
    yield processes
    processes.end()
