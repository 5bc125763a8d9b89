"""The tables, how older ones become these, and how SQLite is set."""

import sqlite3

VERSION = 4
# Neither key is AUTOINCREMENT, which is one more page to write in each commit. Among living rows the order holds
# without it; `Database` keeps the outbox's cursor from meeting a number twice.
_TABLES = """
CREATE TABLE requests (
    seq INTEGER PRIMARY KEY, client TEXT NOT NULL, id TEXT NOT NULL, received_at REAL NOT NULL,
    attempt INTEGER NOT NULL, canceled INTEGER NOT NULL, job BLOB NOT NULL, UNIQUE (client, id));
CREATE TABLE finals (
    seq INTEGER PRIMARY KEY, client TEXT NOT NULL, id TEXT NOT NULL, finished_at REAL NOT NULL,
    topic TEXT NOT NULL, correlation BLOB, payload BLOB NOT NULL, repeatable INTEGER NOT NULL, UNIQUE (client, id));
CREATE INDEX finals_by_age ON finals (finished_at);
CREATE TABLE outbox (seq INTEGER PRIMARY KEY, final INTEGER NOT NULL UNIQUE REFERENCES finals);
"""
_CAMERAS = "CREATE TABLE cameras (name TEXT PRIMARY KEY, policy BLOB NOT NULL) WITHOUT ROWID;"
# By how much the wall clock was set since the first row was stamped. Every stamp is stored less this, so that a
# clock that jumps costs one number, and not a new stamp on a hundred thousand finals.
_CLOCK = "CREATE TABLE clock (shift REAL NOT NULL); INSERT INTO clock VALUES (0);"
# The cloud: whether a byte of a request has left the box, and what that has cost; and what to foresee ends by. The
# column stands last, behind the job, as in a table that it was added to: there is one schema, and one way to it.
_CLOUD = """
ALTER TABLE requests ADD COLUMN egress INTEGER NOT NULL DEFAULT 0;
CREATE TABLE spending (
    period TEXT NOT NULL, payer TEXT NOT NULL, requests INTEGER NOT NULL, tokens INTEGER NOT NULL, money REAL NOT NULL,
    PRIMARY KEY (period, payer)) WITHOUT ROWID;
CREATE TABLE rates (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
"""
# From which version on a part is there.
_PARTS = ((1, _TABLES), (2, _CAMERAS), (3, _CLOCK), (4, _CLOUD))

_PRAGMAS = (
    # The WAL's index is in our memory so, and not in a file that is mapped: a disk that fails under a mapping kills
    # the process (SIGBUS), and a full one has no room for it. Nobody else may look in while the agent runs.
    "locking_mode = EXCLUSIVE",
    "journal_mode = WAL",
    # Copying the WAL back costs two fsyncs, and writes a page once however often it changed in between: 4 MiB
    # are some hundred small commits, and a crash leaves no more than that to read back.
    "wal_autocheckpoint = 1000",
    # After a burst of frames the WAL gives its space back, but for what the next 4 MiB need: overwriting blocks
    # that a file has already spares the file system's own journal.
    "journal_size_limit = 8388608",
    # Debian's SQLite writes zeros over what is deleted: a frame of 500 KB then cost 1.4 MB of flash, and costs 0.75 so.
    "secure_delete = FAST",
    # The hot pages of a small spool and no more.
    "cache_size = -1024",
)


class SchemaError(Exception):
    """The file is a database, but not one of ours, or a newer one."""


def prepare(connection: sqlite3.Connection) -> None:
    """Set a connection up, and make the tables that its file does not have yet.

    Raises:
        SchemaError: nothing was changed.
        sqlite3.Error: the file or its disk.

    """
    # First, as the version is the first thing that is read.
    connection.execute(f"PRAGMA {_PRAGMAS[0]}")
    make_tables(connection)
    for pragma in _PRAGMAS[1:]:
        connection.execute(f"PRAGMA {pragma}")


def make_tables(connection: sqlite3.Connection) -> None:
    """Make those that are not there yet; raises as `prepare`."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    if not (version == 0 and empty) and version not in range(1, VERSION + 1):
        raise SchemaError(f"it has schema {version}, and this edge-slm knows {VERSION}")
    if version < VERSION:
        parts = " ".join(part for since, part in _PARTS if since > version)
        connection.executescript(f"BEGIN; {parts} PRAGMA user_version = {VERSION}; COMMIT")
