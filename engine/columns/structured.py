"""Structured: a column of values that obey a JSON Schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_serializer

from ..core.spec import spec
from .prompted import Prompted
from .reask import Conversation
from .schemas import JsonReader, SchemaLike, json_schema_of, value_schema_of
from .storable import check_of, json_check

if TYPE_CHECKING:
    from .column import Binding
    from .work import Await


@spec
class Structured(Prompted):
    """A model's answer to a prompt, as a value that obeys `schema`: a JSON Schema or a pydantic model.

    The values of a pydantic model have its fields' own names; an answer may use those or the aliases. What no Arrow
    type holds is JSON text in the table.

    The endpoint enforces the schema where it can. An answer that does not obey is repaired where possible: the prose
    around its JSON and slips in the JSON are removed. Otherwise the model is shown what is wrong and asked again, up to
    `reasks` times.
    """

    schema: SchemaLike
    reasks: int = Field(default=1, ge=0, le=100, kw_only=True)
    type: Literal["structured"] = Field(default="structured", kw_only=True)

    def __post_init__(self) -> None:
        """Compile the templates and the schema, to refuse wrong ones at once."""
        super().__post_init__()
        JsonReader(self.schema)

    @field_serializer("schema")
    def json_schema(self, schema: SchemaLike) -> dict[str, Any]:
        """Return the schema as plain data, also where it is a pydantic model."""
        return json_schema_of(schema)

    def answer_schema(self) -> dict[str, Any]:
        """Return the schema that the model must obey."""
        return json_schema_of(self.schema)

    def arrow_type(self) -> dict[str, Any]:
        """Return the schema of the values."""
        from .schema_types import closed  # noqa: PLC0415 - it loads pyarrow

        schema = value_schema_of(self.schema)
        return schema if isinstance(self.schema, dict) else closed(schema)

    def value_schemas(self) -> list[dict[str, Any]]:
        """Return the schema; of a pydantic model that of the values, and that of the answers."""
        return [value_schema_of(self.schema), *([] if isinstance(self.schema, dict) else [json_schema_of(self.schema)])]

    def bind(self, binding: Binding) -> Await:
        """Compile what the cells' conversations have in common, and return the call of one cell."""
        check = None if isinstance(self.schema, dict) else check_of(self.arrow_type())
        reader = JsonReader(self.schema, check if check is json_check else None)
        conversation = Conversation(self.sender(binding), self.schema, reader, self.reasks)
        return self.asking(binding, conversation.hold, fits=True)
