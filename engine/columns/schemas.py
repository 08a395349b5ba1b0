"""JSON Schemas, and the reader that checks a structured column's answers against them."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import jsonschema_rs
import msgspec
import pydantic

from ..core.errors import CellError, ModelError
from .json_repairs import found_in, repaired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .storable import Check

SchemaLike: TypeAlias = dict[str, Any] | type[pydantic.BaseModel]
"""A JSON Schema, or a pydantic model."""


Found: TypeAlias = "tuple[tuple[Any] | None, Exception | None]"
"""The value as a one-tuple, or None, and the error of the first piece that did not obey."""


class _UnwritableError(ValueError):
    """A value that the table cannot hold, such as one with a number that is none."""


_DISOBEYED = (
    _UnwritableError,
    msgspec.DecodeError,
    pydantic.ValidationError,
    jsonschema_rs.ValidationError,
    RecursionError,
)
"""The errors of reading an answer; RecursionError for one that opens bracket upon bracket."""

_OUTSIDE = re.compile(r"(?:Resource|Unknown meta-schema:) '(.*?)'(?: is not present|\. Custom)", re.DOTALL)
"""jsonschema-rs's two messages about a reference that leads out of the schema: a `$ref`, and a `$schema`."""

_SHOWN = 200
_AT_ONCE = 2000
"""The longest text, in letters, that is repaired on the loop (some milliseconds); a longer one needs a thread."""


def json_schema_of(schema: SchemaLike) -> dict[str, Any]:
    """Return the schema that a model must obey, as plain data."""
    return schema if isinstance(schema, dict) else schema.model_json_schema()


def value_schema_of(schema: SchemaLike) -> dict[str, Any]:
    """Return the schema of the values: of a pydantic model with its fields' own names, and with computed fields."""
    if isinstance(schema, dict):
        return schema
    try:
        return schema.model_json_schema(by_alias=False, mode="serialization")
    except pydantic.errors.PydanticUserError:  # a field that is written in a way that no schema describes
        return {}


class DisobedientError(ModelError):
    """An answer that is not JSON, or does not obey the schema. `problem` is one line."""

    def __init__(self, problem: str, answer: str, *, is_json: bool) -> None:
        """Show the beginning of the answer."""
        self.problem = problem
        self.answer = answer
        self.is_json = is_json
        message = f"the answer does not obey the schema: {problem}; it was {answer[:_SHOWN]!r}"
        super().__init__(message, kind="invalid_output", retryable=False)


class JsonReader:
    """Reads answers: from text that holds JSON to a value that obeys the schema."""

    def __init__(self, schema: SchemaLike, check: Check | None = None) -> None:
        """Compile the schema; raises ValueError for anything but a JSON Schema.

        `check` is for the values of a pydantic model, whose code is the user's own.
        """
        self._check = check
        self._model = None if isinstance(schema, dict) else schema
        self._validator = _compiled(json_schema_of(schema))

    def read(self, text: str) -> Any:
        """Read and check an answer; raises DisobedientError if it is not JSON or does not obey."""
        try:
            return self._value(text)
        except _DISOBEYED as error:
            raise DisobedientError(_problem(error), text, is_json=_is_json(error)) from error

    async def repair(self, error: DisobedientError) -> Any:
        """Read an answer again, without fences and the prose around its JSON, and with the JSON repaired.

        Raises DisobedientError if it still does not obey.
        """
        text = error.answer
        found, problem = self._first(found_in(text))
        if found is None and not error.is_json:
            found, of_repaired = await _off_loop(text, lambda: self._first(repaired(text)))
            problem = problem or of_repaired
        if found is not None:
            return found[0]
        if problem is None or error.is_json:
            raise error
        raise DisobedientError(_problem(problem), text, is_json=False) from problem

    def _first(self, pieces: Iterable[str]) -> Found:
        """Return the first piece that obeys, and the error of the first one that does not."""
        problem = None
        for piece in pieces:
            try:
                return (self._value(piece),), None
            except _DISOBEYED as error:
                problem = problem or error
        return None, problem

    def _value(self, text: str) -> Any:
        if self._model is not None:
            return self._dumped(self._model, text)
        value = msgspec.json.decode(text)
        self._validator.validate(value)
        return value

    def _dumped(self, model: type[pydantic.BaseModel], text: str) -> Any:
        """Read an answer by the fields' aliases or names, and return the value, by the names.

        Any error but that of an answer that does not obey is one of the model's own code.
        """
        try:
            value = model.model_validate_json(text, by_alias=True, by_name=True).model_dump(mode="json", by_alias=False)
        except (pydantic.ValidationError, RecursionError):
            raise
        except Exception as error:
            raise CellError from error
        if self._check is not None and (expected := self._check(value)) is not None:
            raise _UnwritableError(f"expected {expected}")
        return value


def _compiled(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    """Compile a schema without fetching anything; raises ValueError for one that is not whole and right by itself."""
    try:
        return jsonschema_rs.validator_for(schema, retriever=_not_fetched)
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        problem = str(error).splitlines()[0]
    if outside := _OUTSIDE.match(problem):
        raise ValueError(
            f"schema refers to {outside[1]!r:.200}, which is not in it, and nothing is fetched; put that schema below"
            ' $defs and refer to it by "#/$defs/NAME"'
        )
    if problem.startswith("Recursion limit"):
        problem = "it contains itself, or is nested too deeply"
    raise ValueError(f"schema is not a JSON Schema: {problem}")


def _not_fetched(uri: str) -> NoReturn:
    """Refuse to fetch. Without this, jsonschema-rs reads any address or file that a recipe names."""
    raise LookupError(uri)


async def _off_loop(text: str, find: Callable[[], Found]) -> Found:
    """Repair a short text at once, and a long one in a thread."""
    return find() if len(text) <= _AT_ONCE else await asyncio.to_thread(find)


def _is_json(error: Exception) -> bool:
    """Return whether the answer is JSON that does not obey."""
    if isinstance(error, pydantic.ValidationError):
        return error.errors(include_url=False)[0]["type"] != "json_invalid"
    return isinstance(error, jsonschema_rs.ValidationError | _UnwritableError)


def _problem(error: Exception) -> str:
    """Return what is wrong, and where, in one line."""
    path: Sequence[object] = ()
    if isinstance(error, pydantic.ValidationError):
        first = error.errors(include_url=False)[0]
        path, problem = first["loc"], first["msg"]
    elif isinstance(error, jsonschema_rs.ValidationError):
        path, problem = error.instance_path, error.message
    elif isinstance(error, _UnwritableError):
        problem = str(error)
    else:
        problem = f"it is not JSON: {error}"
    where = f"{'.'.join(str(part) for part in path)}: " if path else ""
    line = problem.splitlines()[0]
    return where + (line if len(line) <= _SHOWN else f"{line[:_SHOWN]}...")
