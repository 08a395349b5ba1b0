"""JSON Schemas: what a structured column's answers are held against."""

from __future__ import annotations

from typing import Any, TypeAlias

import jsonschema_rs
import msgspec
import pydantic

from .errors import ModelError

SchemaLike: TypeAlias = dict[str, Any] | type[pydantic.BaseModel]
"""A JSON Schema, or the pydantic model that stands for one."""


_DISOBEYED = (msgspec.DecodeError, pydantic.ValidationError, jsonschema_rs.ValidationError, RecursionError)
"""What reading an answer raises; models that run wild open bracket upon bracket."""


def json_schema_of(schema: SchemaLike) -> dict[str, Any]:
    """Give the schema as plain data."""
    return schema if isinstance(schema, dict) else schema.model_json_schema()


class JsonReader:
    """Reads answers: JSON text -> a value that obeys the schema."""

    def __init__(self, schema: SchemaLike) -> None:
        """Compile; raises ValueError for what is not a JSON Schema."""
        self._model = None if isinstance(schema, dict) else schema
        try:
            self._validator = jsonschema_rs.validator_for(json_schema_of(schema))
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
            raise ValueError(f"schema is not a JSON Schema: {str(error).splitlines()[0]}") from None

    def read(self, text: str) -> Any:
        """Read and check; raises ModelError (kind "invalid_output") for what is not JSON or does not obey."""
        try:
            if self._model is not None:
                return self._model.model_validate_json(text).model_dump(mode="json")
            value = msgspec.json.decode(text)
            self._validator.validate(value)
        except _DISOBEYED as error:
            problem = f"the answer does not obey the schema: {_first_line(error)}; it was {text[:200]!r}"
            raise ModelError(problem, kind="invalid_output", retryable=True) from error
        return value


def _first_line(error: Exception) -> str:
    if isinstance(error, pydantic.ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error).splitlines()[0]
