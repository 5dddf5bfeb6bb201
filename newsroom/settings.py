"""Settings: every value that differs between deployments comes from the environment.

`.env.example` explains each variable in a sentence. Without any, the project runs on this machine alone: SQLite, a
broker made of files and a mail folder, all under `var/`. Production begins where `SITE_URL` is not local: there nothing
is guessed, and what is missing is refused with its name.
"""

import json
import os
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from celery.schedules import crontab
from django.core.exceptions import ImproperlyConfigured
from dotenv import dotenv_values
from environs import Env

BASE_DIR = Path(__file__).resolve().parent.parent

# Without interpolation, so that `$` in a password is only a character.
for _name, _value in dotenv_values(BASE_DIR / os.environ.get("ENV_FILE", ".env"), interpolate=False).items():
    os.environ.setdefault(_name, _value or "")

env = Env(expand_vars=False)

VAR_DIR = BASE_DIR / env.str("VAR_DIR", "var")
VAR_DIR.mkdir(parents=True, exist_ok=True)

# Where are we?

SITE_URL = env.str("SITE_URL", "http://127.0.0.1:8000").rstrip("/")
SITE_NAME = env.str("SITE_NAME", "Wochenblitz")
_site = urlsplit(SITE_URL)
SITE_HOST = _site.hostname or "localhost"
IS_HTTPS = _site.scheme == "https"
_is_local = SITE_HOST in {"localhost", "127.0.0.1", "::1"}

DEBUG = env.bool("DEBUG", _is_local)
DEMO = env.bool("DEMO", False)
if DEMO and not _is_local:
    raise ImproperlyConfigured("DEMO shows every mail and its links to whoever asks: only for a local SITE_URL.")
if DEMO:
    DEBUG = False  # the demo shows the site as readers would see it, error pages included
_may_guess = _is_local and (DEBUG or DEMO)


def _kept_secret(name: str) -> str:
    """Return a secret made once for this machine and kept under `var/`, so that no default key is in the source."""
    path = VAR_DIR / "secrets" / name
    path.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        with open(path, "x", opener=lambda file, flags: os.open(file, flags, 0o600)) as file:
            file.write(secrets.token_urlsafe(48))
    except FileExistsError:
        pass
    return path.read_text()


def _secret(name: str) -> str:
    value = env.str(name, "")
    if not value and _may_guess:
        return _kept_secret(name)
    if not value or value.startswith("change-me"):
        raise ImproperlyConfigured(
            f"{name} is missing. Set it to a long random text of its own; `.env.example` shows how to make one."
        )
    return value


SECRET_KEY = _secret("SECRET_KEY")
SECRET_KEY_FALLBACKS: list[str] = env.list("SECRET_KEY_FALLBACKS", [])
SUPPRESSION_KEY = _secret("SUPPRESSION_KEY")
SUPPRESSION_KEY_FALLBACKS: list[str] = env.list("SUPPRESSION_KEY_FALLBACKS", [])

ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", [SITE_HOST, *(["localhost", "127.0.0.1", "[::1]"] if _is_local else [])])
CSRF_TRUSTED_ORIGINS = [SITE_URL]
TRUSTED_PROXY_COUNT = env.int("TRUSTED_PROXY_COUNT", 0)

# The house

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "anymail",
    "csp",
    "newsroom",
    "newsroom.mail",
    "newsroom.articles",
    "subscriptions",
    "digests",
    "newsroom.retention",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "newsroom.policy.PolicyMiddleware",
    "django.middleware.common.CommonMiddleware",
    "newsroom.staff.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "newsroom.staff.AuthenticationMiddleware",
    "newsroom.staff.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "newsroom.urls"
WSGI_APPLICATION = "newsroom.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "newsroom.context.site",
            ],
        },
    }
]

# Data

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": env.dj_db_url("DATABASE_URL", f"sqlite:///{VAR_DIR / 'newsroom.sqlite3'}")}
_database: dict[str, Any] = DATABASES["default"]
if _database["ENGINE"].endswith("sqlite3"):
    _database["NAME"] = str(BASE_DIR / str(_database["NAME"]))
    _database["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",  # a writer waits its turn at BEGIN instead of failing at COMMIT
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA secure_delete=ON;",
    }
else:
    _database["ENGINE"] = "newsroom.postgresql"
    _database["CONN_MAX_AGE"] = env.int("DATABASE_CONN_MAX_AGE", 60)
    _database["CONN_HEALTH_CHECKS"] = True
    _options: dict[str, Any] = _database.setdefault("OPTIONS", {})
    _options.setdefault("connect_timeout", 5)
    # From the first time on: only statements that are executed all the time ask to be prepared.
    _options["prepare_threshold"] = 0 if env.bool("DATABASE_PREPARED_STATEMENTS", True) else None

# Not restored with the database: it tells a restored one who was erased since.
ERASURE_JOURNAL = BASE_DIR / env.str("ERASURE_JOURNAL", str(VAR_DIR / "erasures.jsonl"))
# Nor is this one: it tells how far the database had come that sent last.
HIGH_WATER_MARK = BASE_DIR / env.str("HIGH_WATER_MARK", str(VAR_DIR / "high-water.json"))

CACHES = {"default": env.dj_cache_url("CACHE_URL", "locmem://")}

STATIC_URL = "/static/"
STATIC_ROOT = VAR_DIR / "static"
MEDIA_URL = "/media/"
MEDIA_ROOT = VAR_DIR / "media"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}

# Language and time

LANGUAGE_CODE = env.str("LANGUAGE_CODE", "de")
LANGUAGES = [("de", "Deutsch"), ("en", "English")]
LOCALE_PATHS = [BASE_DIR / "newsroom" / "locale"]
TIME_ZONE = env.str("TIME_ZONE", "Europe/Berlin")
USE_I18N = True
USE_TZ = True

# Who publishes (imprint, every mail, the privacy page)


def _publisher(name: str, sample: str) -> str:
    value = env.str(name, "")
    if not value and not _may_guess:
        raise ImproperlyConfigured(f"{name} is missing: the imprint must name the publisher (§ 5 DDG, § 18 MStV).")
    return value or sample


PUBLISHER = {
    "name": _publisher("PUBLISHER_NAME", "Wochenblitz Verlag GmbH (Muster)"),
    "street": _publisher("PUBLISHER_STREET", "Musterstraße 1"),
    "city": _publisher("PUBLISHER_CITY", "12345 Lauenfeld"),
    "country": env.str("PUBLISHER_COUNTRY", "Deutschland"),
    "email": _publisher("PUBLISHER_EMAIL", "redaktion@wochenblitz.example"),
    "phone": _publisher("PUBLISHER_PHONE", "+49 30 000000"),
    "represented_by": _publisher("PUBLISHER_REPRESENTED_BY", "Maria Muster (Geschäftsführerin)"),
    "register": _publisher("PUBLISHER_REGISTER", "Amtsgericht Lauenfeld, HRB 00000"),
    "vat_id": _publisher("PUBLISHER_VAT_ID", "DE000000000"),
    "responsible_editor": _publisher("PUBLISHER_RESPONSIBLE_EDITOR", "Maria Muster, Anschrift wie oben"),
}
DPO = {
    "name": env.str("DPO_NAME", "Datenschutzbeauftragte der " + PUBLISHER["name"]),
    "email": env.str("DPO_EMAIL", "datenschutz@wochenblitz.example" if _may_guess else PUBLISHER["email"]),
}
ALARM_EMAIL = env.str("ALARM_EMAIL", PUBLISHER["email"])  # a digest that is late, mail that is stuck
SUPERVISORY_AUTHORITY = env.str(
    "SUPERVISORY_AUTHORITY", "die Datenschutzaufsichtsbehörde des Bundeslandes, in dem der Verlag sitzt"
)
HOSTING_PROVIDER = env.str("HOSTING_PROVIDER", "")
MAIL_PROVIDER = env.str("MAIL_PROVIDER", "")
THIRD_COUNTRY_TRANSFER = env.str("THIRD_COUNTRY_TRANSFER", "")  # whole sentences: which country, which safeguard

# Mail

EMAIL_BACKEND = env.str(
    "EMAIL_BACKEND",
    "django_mail_preview.backends.EmailBackend"
    if DEMO
    else "django.core.mail.backends.filebased.EmailBackend"
    if DEBUG
    else "django.core.mail.backends.smtp.EmailBackend",
)
EMAIL_FILE_PATH = VAR_DIR / "mail"
EMAIL_HOST = env.str("EMAIL_HOST", "localhost")
EMAIL_PORT = env.int("EMAIL_PORT", 25)
EMAIL_HOST_USER = env.str("EMAIL_HOST_USER", "")
EMAIL_HOST_PASSWORD = env.str("EMAIL_HOST_PASSWORD", "")
EMAIL_USE_TLS = env.bool("EMAIL_USE_TLS", False)
EMAIL_USE_SSL = env.bool("EMAIL_USE_SSL", False)
EMAIL_TIMEOUT = env.int("EMAIL_TIMEOUT", 25)
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", f"{SITE_NAME} <newsletter@{SITE_HOST}>")
if _is_local and "DEFAULT_FROM_EMAIL" not in os.environ:
    DEFAULT_FROM_EMAIL = f"{SITE_NAME} <newsletter@wochenblitz.example>"
SERVER_EMAIL = DEFAULT_FROM_EMAIL


def _read_json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


ANYMAIL = {
    # Anymail takes one number or (connect, read); a hung provider must not outlive a lease.
    "REQUESTS_TIMEOUT": (5, 25),
    **{
        name.removeprefix("ANYMAIL_"): _read_json_or_text(value)
        for name, value in os.environ.items()
        if name.startswith("ANYMAIL_")
    },
}

# What is kept for how long: shown on the privacy page, enforced by `manage.py purge`.

CONFIRMATION_LIFETIME = timedelta(hours=env.int("CONFIRMATION_LIFETIME_HOURS", 72))
SIGN_UP_RETENTION = timedelta(days=env.int("SIGN_UP_RETENTION_DAYS", 7))
RIGHTS_LINK_LIFETIME = timedelta(hours=env.int("RIGHTS_LINK_LIFETIME_HOURS", 24))
RIGHTS_FORM_LIFETIME = timedelta(minutes=30)
DELIVERY_RETENTION = timedelta(days=env.int("DELIVERY_RETENTION_DAYS", 90))
PROVIDER_EVENT_RETENTION = timedelta(days=env.int("PROVIDER_EVENT_RETENTION_DAYS", 7))
if PROVIDER_EVENT_RETENTION.days < 2:
    raise ImproperlyConfigured("PROVIDER_EVENT_RETENTION_DAYS is 2 at least: until then a report may be sent again.")
EVIDENCE_RETENTION_YEARS = env.int("EVIDENCE_RETENTION_YEARS", 3)
CONSENT_LAPSE_MONTHS = env.int("CONSENT_LAPSE_MONTHS", 24)
EVIDENCE_VIEW_RETENTION = timedelta(days=env.int("EVIDENCE_VIEW_RETENTION_DAYS", 365))
ADDRESS_CHANGE_RETENTION = timedelta(days=env.int("ADDRESS_CHANGE_RETENTION_DAYS", 90))
PRIVACY_REQUEST_RETENTION = timedelta(days=env.int("PRIVACY_REQUEST_RETENTION_DAYS", 3 * 365))
CASE_WARNING_AFTER = timedelta(days=env.int("CASE_WARNING_AFTER_DAYS", 25))  # a month is too late to begin
LOG_RETENTION = timedelta(days=env.int("LOG_RETENTION_DAYS", 7))
BACKUP_RETENTION = timedelta(days=env.int("BACKUP_RETENTION_DAYS", 35))
ERASURE_JOURNAL_RETENTION = timedelta(days=env.int("ERASURE_JOURNAL_RETENTION_DAYS", 2 * BACKUP_RETENTION.days))
if ERASURE_JOURNAL_RETENTION < BACKUP_RETENTION:
    raise ImproperlyConfigured("ERASURE_JOURNAL_RETENTION_DAYS is BACKUP_RETENTION_DAYS at least, or a backup forgets.")
ADMIN_LOG_RETENTION = timedelta(days=env.int("ADMIN_LOG_RETENTION_DAYS", 365))
PURGE_RUN_RETENTION = timedelta(days=env.int("PURGE_RUN_RETENTION_DAYS", 365))
PURGE_GRACE = timedelta(days=env.int("PURGE_GRACE_DAYS", 2))  # what is due for longer and still there, audit names
PURGE_CHUNK = env.int("PURGE_CHUNK", 100 if _database["ENGINE"].endswith("sqlite3") else 1000)  # rows a transaction
BOUNCE_RETENTION = timedelta(days=365)  # after a year the address may belong to someone
NETWORK_COUNT_RETENTION = timedelta(hours=24)
EVIDENCE_IP = env.str("EVIDENCE_IP", "full")
if EVIDENCE_IP not in {"full", "truncated", "none"}:
    raise ImproperlyConfigured("EVIDENCE_IP is one of: full, truncated, none.")

# Who may ask how often (compliance.md E-42)

SIGN_UPS_PER_ADDRESS = [(1, timedelta(minutes=10)), (3, timedelta(hours=24))]
ADDRESS_CHANGES_PER_READER = (5, timedelta(days=1))
REQUESTS_PER_NETWORK = (env.int("REQUESTS_PER_NETWORK_PER_HOUR", 30), timedelta(hours=1))
CONFIRMATIONS_PER_HOUR = env.int("CONFIRMATIONS_PER_HOUR", 2000)
FORM_STAMP_LIFETIME = timedelta(days=1)
FORM_MINIMUM_FILL_TIME = timedelta(seconds=env.float("FORM_MINIMUM_FILL_SECONDS", 0.0 if DEMO else 1.0))

# Delivery (reliability.md section 2)

DELIVERY_LEASE = timedelta(seconds=env.int("DELIVERY_LEASE_SECONDS", 60))
# SQLite has but one writer, which must not be kept waiting for long.
DELIVERY_BATCH_SIZE = env.int("DELIVERY_BATCH_SIZE", 100 if _database["ENGINE"].endswith("sqlite3") else 1000)
DELIVERY_CALL_SIZE = env.int("DELIVERY_CALL_SIZE", 1000)
DELIVERY_CONNECTIONS = env.int("DELIVERY_CONNECTIONS", 4)
DELIVERY_MAX_ATTEMPTS = 5
UNCERTAIN_DEADLINE = timedelta(minutes=env.int("UNCERTAIN_DEADLINE_MINUTES", 30))
MAIL_PER_SECOND = env.float("MAIL_PER_SECOND", None)
MAIL_PER_DAY = env.int("MAIL_PER_DAY", None)
# For a sender mailboxes do not know yet, day by day; afterwards as many as there are.
MAIL_WARM_UP = env.list(
    "MAIL_WARM_UP", [200, 500, 1000, 2000, 4000, 8000, 15_000, 30_000, 50_000, 75_000, 100_000], subcast=int
)
DIGEST_ALARM_AFTER = timedelta(minutes=env.int("DIGEST_ALARM_MINUTES", 60))
TICK_SECONDS = env.float("TICK_SECONDS", 60)
SWEEP_SECONDS = env.float("SWEEP_SECONDS", 5)
OUTBOX_SECONDS = env.float("OUTBOX_SECONDS", 2)
ARTICLE_MAX_AGE = timedelta(hours=env.int("ARTICLE_MAX_AGE_HOURS", 72))

# What comes back (compliance.md E-45)

EVENTS_SECONDS = env.float("EVENTS_SECONDS", 5)
BOUNCE_ADDRESS = env.str("BOUNCE_ADDRESS", "")
SOFT_BOUNCE_DAYS = env.int("SOFT_BOUNCE_DAYS", 3)
if SOFT_BOUNCE_DAYS < 1:
    raise ImproperlyConfigured("SOFT_BOUNCE_DAYS is 1 at least: nobody is paused for nothing.")
SOFT_BOUNCE_WINDOW = timedelta(days=env.int("SOFT_BOUNCE_WINDOW_DAYS", 14))
SOFT_BOUNCE_PAUSE = timedelta(days=env.int("SOFT_BOUNCE_PAUSE_DAYS", 30))

# Celery: the database is the queue of record, a task is a hint (reliability.md 2.6).

BROKER_URL = env.str("BROKER_URL", "filesystem://")
_broker_dir = VAR_DIR / "broker"
if BROKER_URL.startswith("filesystem"):
    _transport_options: dict[str, Any] = {
        "data_folder_in": str(_broker_dir / "queue"),
        "data_folder_out": str(_broker_dir / "queue"),
        "control_folder": str(_broker_dir / "control"),
        "processed_folder": str(_broker_dir / "processed"),
        "store_processed": False,
    }
    for _folder in ("queue", "control", "processed", "tmp"):
        (_broker_dir / _folder).mkdir(parents=True, exist_ok=True)
elif BROKER_URL.startswith("redis"):
    _transport_options = {
        "visibility_timeout": 3600,
        "socket_timeout": 10,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        "health_check_interval": 25,
    }
else:
    _transport_options = {"confirm_publish": True}

CELERY = {
    "broker_url": BROKER_URL,
    "broker_transport_options": _transport_options,
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "task_serializer": "json",
    "accept_content": ["json"],
    "result_backend": None,
    "task_ignore_result": True,
    "task_acks_late": True,  # safe because every task claims its row first
    "task_reject_on_worker_lost": False,  # True would loop for ever on a task that kills its worker
    "task_soft_time_limit": 75,
    "task_time_limit": 120,
    "worker_prefetch_multiplier": 1,
    "worker_max_tasks_per_child": 500,
    "worker_max_memory_per_child": 300_000,  # kB
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_send_task_events": False,
    "worker_hijack_root_logger": False,
    "task_publish_retry": True,
    "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0.1, "interval_max": 0.2},
    "task_default_queue": "default",
    "task_routes": {
        "newsroom.mail.*": {"queue": "fast"},
        "digests.tasks.deliver_batch": {"queue": "send"},
    },
    "timezone": TIME_ZONE,
    "beat_schedule_filename": str(VAR_DIR / "beat-schedule"),
    "beat_schedule": {
        "send-outbox": {
            "task": "newsroom.mail.tasks.send_outbox",
            "schedule": OUTBOX_SECONDS,
            "options": {"expires": 10},
        },
        "alarms": {"task": "newsroom.mail.tasks.watch_alarms", "schedule": 60.0, "options": {"expires": 60}},
        "tick": {"task": "digests.tasks.tick", "schedule": TICK_SECONDS, "options": {"expires": 60}},
        "events": {
            "task": "digests.tasks.process_events",
            "schedule": EVENTS_SECONDS,
            "options": {"expires": 10},
        },
        "sweep": {"task": "digests.tasks.sweep", "schedule": SWEEP_SECONDS, "options": {"expires": 10}},
        # Before the office opens, so that the officer's mailbox holds the head of yesterday's chain.
        "anchor": {
            "task": "subscriptions.tasks.anchor",
            "schedule": crontab(hour="5", minute="30"),
            "options": {"expires": 6 * 3600},
        },
        "warn-of-deadlines": {
            "task": "subscriptions.tasks.warn_of_deadlines",
            "schedule": crontab(hour="5", minute="45"),
            "options": {"expires": 6 * 3600},
        },
        "seal": {"task": "subscriptions.tasks.seal", "schedule": 60.0, "options": {"expires": 60}},
        "purge": {"task": "newsroom.tasks.purge", "schedule": 3600.0, "options": {"expires": 3600}},
        "audit": {"task": "newsroom.tasks.audit", "schedule": 3600.0, "options": {"expires": 3600}},
    },
}

# Security

SECURE_SSL_REDIRECT = IS_HTTPS  # a trusted proxy says in X-Forwarded-Proto what the reader used
SECURE_REDIRECT_EXEMPT = [r"^newsletter/abmelden/", r"^health/"]  # RFC 8058: no redirect on one-click
SECURE_HSTS_SECONDS = 31_536_000 if IS_HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = False
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "strict-origin-when-cross-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
if TRUSTED_PROXY_COUNT:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = IS_HTTPS
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = 8 * 3600
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = "/admin/"  # readers never get a cookie
CSRF_FAILURE_VIEW = "newsroom.errors.csrf_failure"
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
    }
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 1_000_000
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

# Logs carry ids, never addresses or tokens; the formatter is the second line of defence.

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"()": "newsroom.logs.MaskingFormatter", "format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": env.str("LOG_LEVEL", "INFO")},
    "loggers": {
        "django": {"handlers": [], "propagate": True},
        "django.server": {"handlers": [], "propagate": True},
        "celery.app.trace": {"level": "WARNING"},  # a line per task twice a second tells nobody anything
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
    },
}

if DEMO:
    INSTALLED_APPS += ["django_mail_preview"]
    MAIL_PREVIEW_ROOT = VAR_DIR / "mailbox"
    MAIL_PREVIEW_MAX_MESSAGES = 100_000
    MAIL_PREVIEW_ALLOW = "newsroom.mailbox.is_demo"
    CSRF_COOKIE_PATH = "/"  # the mailbox has buttons too
