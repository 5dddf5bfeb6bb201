"""The database itself refuses to change or delete what proves a consent; deleting has one door (see `ledger.door`).

The triggers protect from mistakes, not from the tables' owner: against intent stands the chain of seals. SQLite drops
a table's triggers when a later migration rebuilds the table; `manage.py check --database default` and `audit` then say
so, and `guard_ledger` creates them anew.
"""

from collections.abc import Iterator

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

# Table, and the columns of each unique index: by any of them a replacing insert could overwrite a row.
TABLES = {
    "subscriptions_consentrecord": ("id", "uuid"),
    "subscriptions_consentpayload": ("record_id",),
    "subscriptions_consentseal": ("id", "number", "hash"),
    "subscriptions_sealedrecord": ("record_id",),
    "subscriptions_consenttext": ("id", "newsletter_id language version"),
    "subscriptions_consenttextuse": ("text_id",),
}

# A text that nobody has agreed to proves nothing: staff may discard it.
USES = "SELECT 1 FROM subscriptions_consenttextuse WHERE text_id = OLD.id"
MAY_GO = {"subscriptions_consenttext": f"NOT EXISTS ({USES})"}

POSTGRESQL_FUNCTION = """
CREATE OR REPLACE FUNCTION subscriptions_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'UPDATE' AND current_setting('newsroom.ledger_door', true) = 'open' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP;
END $$
"""
POSTGRESQL_TEXT_FUNCTION = f"""
CREATE OR REPLACE FUNCTION subscriptions_refuse_deleting_used_text() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS ({USES}) OR current_setting('newsroom.ledger_door', true) = 'open' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP;
END $$
"""
POSTGRESQL_TEXT = """
CREATE OR REPLACE TRIGGER subscriptions_consenttext_refuses_delete BEFORE DELETE ON subscriptions_consenttext
    FOR EACH ROW EXECUTE FUNCTION subscriptions_refuse_deleting_used_text();
"""
POSTGRESQL = """
CREATE OR REPLACE TRIGGER {table}_refuses_update BEFORE UPDATE ON {table}
    FOR EACH ROW EXECUTE FUNCTION subscriptions_refuse_change();
CREATE OR REPLACE TRIGGER {table}_refuses_delete BEFORE DELETE ON {table}
    FOR EACH ROW EXECUTE FUNCTION subscriptions_refuse_change();
CREATE OR REPLACE TRIGGER {table}_refuses_truncate BEFORE TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION subscriptions_refuse_change();
"""
SQLITE_DOOR = "CREATE TABLE IF NOT EXISTS subscriptions_ledgerdoor (id integer PRIMARY KEY CHECK (id = 1))"
SQLITE = (
    """
    CREATE TRIGGER IF NOT EXISTS {table}_refuses_update BEFORE UPDATE ON {table}
    BEGIN SELECT RAISE(ABORT, '{table} is append-only: UPDATE refused'); END
    """,
    """
    CREATE TRIGGER IF NOT EXISTS {table}_refuses_delete BEFORE DELETE ON {table}
    WHEN NOT EXISTS (SELECT 1 FROM subscriptions_ledgerdoor) AND NOT ({may_go})
    BEGIN SELECT RAISE(ABORT, '{table} is append-only: DELETE refused'); END
    """,
    """
    CREATE TRIGGER IF NOT EXISTS {table}_refuses_replace BEFORE INSERT ON {table}
    WHEN EXISTS (SELECT 1 FROM {table} WHERE {same_row})
    BEGIN SELECT RAISE(ABORT, '{table} is append-only: REPLACE refused'); END
    """,
)


def guard(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """The migration's step."""
    create_triggers(schema_editor.connection)


def create_triggers(connection: BaseDatabaseWrapper) -> None:
    """Create the triggers that are missing, and the door."""
    with connection.cursor() as cursor:
        for statement in _postgresql() if connection.vendor == "postgresql" else _sqlite():
            cursor.execute(statement)


def _postgresql() -> Iterator[str]:
    yield POSTGRESQL_FUNCTION
    yield from (POSTGRESQL.format(table=table) for table in TABLES)
    yield POSTGRESQL_TEXT_FUNCTION
    yield POSTGRESQL_TEXT


def _sqlite() -> Iterator[str]:
    yield SQLITE_DOOR
    for table, indexes in TABLES.items():
        same_row = " OR ".join(_is_same(columns.split()) for columns in indexes)
        may_go = MAY_GO.get(table, "FALSE")
        yield from (statement.format(table=table, same_row=same_row, may_go=may_go) for statement in SQLITE)


def _is_same(columns: list[str]) -> str:
    return " AND ".join(f"{column} IS NEW.{column}" for column in columns)
