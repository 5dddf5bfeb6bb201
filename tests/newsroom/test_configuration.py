import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ENVIRONMENT

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = (ROOT / ".env.example").read_text()


def test_the_example_has_a_sentence_for_every_variable_the_settings_read():
    source = (ROOT / "newsroom" / "settings.py").read_text()
    read = set(re.findall(r'(?:env\.\w+|_secret|_publisher)\(\s*"([A-Z_]+)"', source))

    explained = set(re.findall(r"^# \S.*\n# ([A-Z_]+)=", EXAMPLE, re.MULTILINE))

    assert {name for name in explained if not name.startswith("ANYMAIL_")} == read


PUBLIC = {**ENVIRONMENT, "SITE_URL": "https://news.example.com"}
SECRETS = ("SECRET_KEY", "SUPPRESSION_KEY", "PUBLISHER_NAME", "PUBLISHER_EMAIL")


def started(tmp_path: Path, environment: dict[str, str], *code: str) -> subprocess.CompletedProcess[str]:
    """Load the settings as a process of its own does, and run a line of code with them."""
    own = {"PATH": os.environ["PATH"], "VAR_DIR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "newsroom.settings"}
    command = [sys.executable, "-c", "; ".join(["import django", "django.setup()", *code])]
    return subprocess.run(command, env=own | environment, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("missing", SECRETS)
@pytest.mark.parametrize("debug", ["false", "true"])
def test_a_public_site_refuses_to_start_without_what_it_would_have_to_guess(tmp_path, missing, debug):
    done = started(tmp_path, {name: value for name, value in PUBLIC.items() if name != missing} | {"DEBUG": debug})

    assert done.returncode and f"ImproperlyConfigured: {missing} is missing" in done.stderr


def test_the_demo_with_its_open_mailbox_runs_on_this_machine_only(tmp_path):
    assert "ImproperlyConfigured: DEMO" in started(tmp_path, {**PUBLIC, "DEMO": "true"}).stderr
    assert started(tmp_path, {**ENVIRONMENT, "DEMO": "true"}).returncode == 0


@pytest.mark.parametrize("proxies", ["0", "1"])
def test_plain_http_is_led_to_https_with_and_without_proxies(tmp_path, proxies):
    done = started(
        tmp_path,
        {**PUBLIC, "TRUSTED_PROXY_COUNT": proxies},
        "from django.test import Client",
        "c = Client(headers={'host': 'news.example.com', 'x-forwarded-proto': 'http'})",
        "print(c.get('/robots.txt').headers['Location'], c.get('/health/live').status_code)",
    )

    assert done.stdout.split() == ["https://news.example.com/robots.txt", "200"], done.stderr


def test_a_proxy_that_speaks_https_is_believed_only_where_one_is_trusted(tmp_path):
    get = (
        "from django.test import Client",
        "c = Client(headers={'host': 'news.example.com', 'x-forwarded-proto': 'https'})",
        "print(c.get('/robots.txt').status_code)",
    )

    assert started(tmp_path, {**PUBLIC, "TRUSTED_PROXY_COUNT": "1"}, *get).stdout == "200\n"
    assert started(tmp_path, {**PUBLIC, "TRUSTED_PROXY_COUNT": "0"}, *get).stdout == "301\n"
