"""Backup and restore as an operator does them: pg_dump and pg_restore, or a copy of SQLite's file."""

import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from django.db import connection

from tests.processes import database_url
from tests.servers import postgres_tool


def back_up(to: Path) -> None:
    if connection.vendor == "sqlite":
        source, copy = sqlite3.connect(connection.settings_dict["NAME"]), sqlite3.connect(to)
        with closing(source), closing(copy):
            source.backup(copy)
        return
    _run("pg_dump", "--format=custom", f"--file={to}", database_url())


def restore(backup: Path) -> None:
    """Put the database back; whoever was connected to it has to connect anew."""
    connection.close()
    if connection.vendor == "sqlite":
        path = Path(connection.settings_dict["NAME"])
        for leftover in (path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            leftover.unlink(missing_ok=True)
        shutil.copyfile(backup, path)
        return
    _run("pg_restore", "--clean", "--if-exists", "--exit-on-error", f"--dbname={database_url()}", str(backup))


def dump_lines() -> list[str]:
    """Return all that a dump of the database says, with an INSERT for each row."""
    if connection.vendor == "sqlite":
        with closing(sqlite3.connect(connection.settings_dict["NAME"])) as database:
            return "\n".join(database.iterdump()).splitlines()
    return _run("pg_dump", "--inserts", database_url()).splitlines()


@contextmanager
def connected_to(url: str) -> Iterator[None]:
    """Let the test's own connection lead to another PostgreSQL for as long as the block lasts."""
    parts, former = urlsplit(url), dict(connection.settings_dict)
    connection.close()
    connection.settings_dict.update(
        NAME=parts.path.lstrip("/"),
        USER=parts.username,
        PASSWORD=parts.password,
        HOST=parts.hostname,
        PORT=parts.port,
    )
    yield
    connection.close()
    connection.settings_dict.update(former)


def copy_database(name: str) -> str:
    """Copy the test database under another name on the same server and return where it stands."""
    connection.close()
    if connection.vendor == "sqlite":
        back_up(Path(name))
        connection.close()
        return name
    database = connection.settings_dict
    with psycopg.connect(database_url().rpartition("/")[0] + "/postgres", autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{database["NAME"]}"')
    return name


def drop_database(name: str) -> None:
    connection.close()
    if connection.vendor == "postgresql":
        with psycopg.connect(database_url().rpartition("/")[0] + "/postgres", autocommit=True) as server:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _run(tool: str, *arguments: str) -> str:
    done = subprocess.run([postgres_tool(tool), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
