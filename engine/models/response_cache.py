"""The response cache: answers of earlier runs by the whole of what was asked, in one SQLite file that runs may share.

Requests that are the same within one run get answers of their own, or rows that only chance tells apart would all be
one: the first of them gets the first answer that was kept, the second the second. What is kept is the reply, never a
key; failures are not kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from ..core.errors import DatasetGenerationError, RecipeError
from .provider import Reply

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from .provider import Ask, ChatParameters, Message

T = TypeVar("T")

_OURS: Final = 0x726F7763  # "rowc"
_TABLE: Final = """
CREATE TABLE IF NOT EXISTS replies (
    request BLOB NOT NULL, number INTEGER NOT NULL, reply BLOB NOT NULL, PRIMARY KEY (request, number)
) WITHOUT ROWID
"""


class ResponseCache:
    """The cache in one file. It is read and written in a thread of its own."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open or make it; raises RecipeError for a file that is something else."""
        self.path = Path(path)
        self.hits = 0
        """How many requests were answered from it."""
        self._asked: Counter[bytes] = Counter()
        self._thread = ThreadPoolExecutor(1, "rowloop-cache")
        try:
            self._db = _opened(self.path)
        except (sqlite3.Error, OSError) as error:
            raise RecipeError("cache", f"'{self.path}' cannot be used as a response cache: {error}") from error

    def around(self, ask: Ask, model: str, parameters: ChatParameters) -> Ask:
        """Give a way to ask that looks here first; `model` says which model it is, wherever it is."""
        prefix = _encode([model, asdict(parameters)])

        async def cached(messages: list[Message]) -> Reply:
            request = hashlib.blake2b(prefix + _encode(messages), digest_size=20).digest()
            number = self._asked[request]
            self._asked[request] += 1
            try:
                found = await self._call(partial(self._find, request, number))
                if found is not None:
                    self.hits += 1
                    return found
                reply = await ask(messages)
                await self._call(partial(self._keep, request, number, reply))
            except BaseException:
                self._asked[request] -= 1
                raise
            return reply

        return cached

    def close(self) -> None:
        """Let go of the file and the thread."""
        self._thread.shutdown()
        with contextlib.suppress(sqlite3.Error):  # all of it has been committed
            self._db.close()

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _find(self, request: bytes, number: int) -> Reply | None:
        query = "SELECT reply FROM replies WHERE request = ? AND number = ?"
        try:
            row = self._db.execute(query, (request, number)).fetchone()
            reply = None if row is None else msgspec.msgpack.decode(row[0], type=Reply)
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            raise self._broken("read", error) from error
        return reply and replace(reply, prompt_tokens=0, completion_tokens=0, requests=0)

    def _keep(self, request: bytes, number: int, reply: Reply) -> None:
        try:
            self._db.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?)", (request, number, _encode(reply)))
        except sqlite3.Error as error:
            raise self._broken("written", error) from error

    def _broken(self, what: str, error: Exception) -> DatasetGenerationError:
        return DatasetGenerationError(f"'{self.path}' cannot be {what}: {error}", stage="cache")


def _opened(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    try:
        _set_up(db)
    except BaseException:
        db.close()
        raise
    return db


def _set_up(db: sqlite3.Connection) -> None:
    """Make the table in a new file; raises DatabaseError for one that holds something else."""
    (ours,) = db.execute("PRAGMA application_id").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if ours != _OURS and tables:
        raise sqlite3.DatabaseError("it is a database of something else")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute(f"PRAGMA application_id = {_OURS}")
    db.execute(_TABLE)


_encode = msgspec.msgpack.Encoder(order="deterministic").encode
