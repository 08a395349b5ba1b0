"""The response cache: stored answers by the hash of their whole request, in one SQLite file that runs may share.

Equal requests within one run get different answers, so that rows with the same prompt do not all get the same text: the
first gets the first stored answer, the second the second. Complete answers are stored; keys, failures and replies that
are no answer to the column that asks are not. Nor is a stored reply used that an older version took for an answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections import Counter
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from ...runtime.one_thread import OneThread
from ..core.errors import DatasetGenerationError, RecipeError
from .provider import Reply
from .sqlite_file import FileFormat, open_file

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from .provider import Ask, ChatParameters, Message

T = TypeVar("T")

_FORMAT: Final = FileFormat(
    application_id=0x726F7763,  # "rowc"
    version=0,
    tables="""
CREATE TABLE replies (
    request BLOB NOT NULL, number INTEGER NOT NULL, reply BLOB NOT NULL, PRIMARY KEY (request, number)
) WITHOUT ROWID
""",
)


class ResponseCache:
    """The cache in one file, read and written in a thread of its own."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open or make the file; raises RecipeError for a file of another format."""
        self.path = Path(path)
        self.hits = 0
        """How many requests were answered from the cache."""
        self._asked: Counter[bytes] = Counter()
        self._thread = OneThread("rowloop-cache")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = open_file(self.path, _FORMAT, exclusive=False)
        except (sqlite3.Error, OSError) as error:
            raise RecipeError("cache", f"'{self.path}' cannot be used as a response cache: {error}") from error

    def wrap(self, ask: Ask, model: str, parameters: ChatParameters, usable: Callable[[Reply], bool]) -> Ask:
        """Wrap a call to a model: look for a stored answer first.

        `model` identifies the model and its endpoint. `usable` returns whether a reply is an answer: others are neither
        stored nor read.
        """
        prefix = _encode([model, asdict(parameters)])

        async def cached(messages: list[Message]) -> Reply:
            request = hashlib.blake2b(prefix + _encode(messages), digest_size=20).digest()
            number = self._asked[request]
            self._asked[request] += 1
            try:
                found = await self._call(partial(self._find, request, number))
                if found is not None and usable(found):
                    self.hits += 1
                    return found
                reply = await ask(messages)
                if usable(reply):
                    await self._call(partial(self._keep, request, number, reply))
                else:
                    self._asked[request] -= 1  # the next attempt takes this number
            except BaseException:
                self._asked[request] -= 1
                raise
            return reply

        return cached

    def close(self) -> None:
        """Close the file and end the thread."""
        self._thread.close()
        with contextlib.suppress(sqlite3.Error):  # everything has been committed
            self._db.close()

    async def _call(self, work: Callable[[], T]) -> T:
        return await self._thread.call(work)

    def _find(self, request: bytes, number: int) -> Reply | None:
        query = "SELECT reply FROM replies WHERE request = ? AND number = ?"
        try:
            row = self._db.execute(query, (request, number)).fetchone()
            reply = None if row is None else msgspec.msgpack.decode(row[0], type=Reply)
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            raise self._broken("read", error) from error
        return reply and replace(reply, prompt_tokens=0, completion_tokens=0, requests=0, billing=None)

    def _keep(self, request: bytes, number: int, reply: Reply) -> None:
        try:
            self._db.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?)", (request, number, _encode(reply)))
        except sqlite3.Error as error:
            raise self._broken("written", error) from error

    def _broken(self, what: str, error: Exception) -> DatasetGenerationError:
        return DatasetGenerationError(f"'{self.path}' cannot be {what}: {error}", stage="cache")


_encode = msgspec.msgpack.Encoder(order="deterministic").encode
