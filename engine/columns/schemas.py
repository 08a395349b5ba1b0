"""JSON Schemas: what a structured column's answers are held against."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias

import jsonschema_rs
import msgspec
import pydantic

from ..core.errors import ModelError
from .json_repairs import found_in, mended

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

SchemaLike: TypeAlias = dict[str, Any] | type[pydantic.BaseModel]
"""A JSON Schema, or the pydantic model that stands for one."""


Found: TypeAlias = "tuple[tuple[Any] | None, Exception | None]"
"""A value in a tuple of its own, None where there is none, and what was wrong with others."""

_DISOBEYED = (msgspec.DecodeError, pydantic.ValidationError, jsonschema_rs.ValidationError, RecursionError)
"""What reading an answer raises; models that run wild open bracket upon bracket."""

_SHOWN = 200
_AT_ONCE = 2000
"""Letters that are mended on the loop, in some milliseconds; more are mended in a thread."""


def json_schema_of(schema: SchemaLike) -> dict[str, Any]:
    """Give the schema as plain data."""
    return schema if isinstance(schema, dict) else schema.model_json_schema()


class DisobedientError(ModelError):
    """An answer that is not JSON, or does not obey the schema. `problem` says what is wrong, in one line."""

    def __init__(self, problem: str, answer: str, *, is_json: bool) -> None:
        """Show the beginning of the answer."""
        self.problem = problem
        self.answer = answer
        self.is_json = is_json
        told = f"the answer does not obey the schema: {problem}; it was {answer[:_SHOWN]!r}"
        super().__init__(told, kind="invalid_output", retryable=False)


class JsonReader:
    """Reads answers: text that holds JSON -> a value that obeys the schema."""

    def __init__(self, schema: SchemaLike) -> None:
        """Compile; raises ValueError for what is not a JSON Schema."""
        self._model = None if isinstance(schema, dict) else schema
        try:
            self._validator = jsonschema_rs.validator_for(json_schema_of(schema))
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
            raise ValueError(f"schema is not a JSON Schema: {str(error).splitlines()[0]}") from None

    def read(self, text: str) -> Any:
        """Read and check; raises DisobedientError for what is not JSON or does not obey."""
        try:
            return self._value(text)
        except _DISOBEYED as error:
            raise DisobedientError(_told(error), text, is_json=_is_json(error)) from error

    async def repair(self, error: DisobedientError) -> Any:
        """Read an answer that would not do without its fences, the prose around it and slips in its JSON.

        Raises DisobedientError for what still does not obey.
        """
        text = error.answer
        found, problem = self._first(found_in(text))
        if found is None and not error.is_json:
            found, of_mended = await _mended(text, lambda: self._first(mended(text)))
            problem = problem or of_mended
        if found is not None:
            return found[0]
        if problem is None or error.is_json:
            raise error
        raise DisobedientError(_told(problem), text, is_json=False) from problem

    def _first(self, pieces: Iterable[str]) -> Found:
        """Give the first piece that obeys, and what is wrong with the first that does not."""
        problem = None
        for piece in pieces:
            try:
                return (self._value(piece),), None
            except _DISOBEYED as error:
                problem = problem or error
        return None, problem

    def _value(self, text: str) -> Any:
        if self._model is not None:
            return self._model.model_validate_json(text).model_dump(mode="json")
        value = msgspec.json.decode(text)
        self._validator.validate(value)
        return value


async def _mended(text: str, find: Callable[[], Found]) -> Found:
    """Mend on the spot what takes milliseconds, and the rest in a thread."""
    return find() if len(text) <= _AT_ONCE else await asyncio.to_thread(find)


def _is_json(error: Exception) -> bool:
    """Tell whether the answer was JSON, which does not obey."""
    if isinstance(error, pydantic.ValidationError):
        return error.errors(include_url=False)[0]["type"] != "json_invalid"
    return isinstance(error, jsonschema_rs.ValidationError)


def _told(error: Exception) -> str:
    """Say in one line what is wrong, and where."""
    path: Sequence[object] = ()
    if isinstance(error, pydantic.ValidationError):
        first = error.errors(include_url=False)[0]
        path, problem = first["loc"], first["msg"]
    elif isinstance(error, jsonschema_rs.ValidationError):
        path, problem = error.instance_path, error.message
    else:
        problem = f"it is not JSON: {error}"
    where = f"{'.'.join(str(part) for part in path)}: " if path else ""
    line = problem.splitlines()[0]
    return where + (line if len(line) <= _SHOWN else f"{line[:_SHOWN]}...")
