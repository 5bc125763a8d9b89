"""Ways to damage a spool that nobody has open, and to look into what is left of it."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

PAGE = 4096


def kept_aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.damaged-*[0-9]"))


def edited(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(statement)


def written(path: Path, data: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def content(path: Path) -> bytes:
    return path.read_bytes()


def overwritten(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def root_of(path: Path, name: str) -> int:
    """Return where the root page of a table or an index is in the file."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        (page,) = database.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,)).fetchone()
    return (int(page) - 1) * PAGE


def rows(path: Path, query: str) -> Iterator[tuple[object, ...]]:
    """Yield what a plain read gets, up to the first damage. It takes the WAL away."""
    with contextlib.closing(sqlite3.connect(path)) as database, contextlib.suppress(sqlite3.Error):
        database.text_factory = bytes
        yield from database.execute(query)
