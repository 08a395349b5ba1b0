"""Columns that are written: expressions, and what models answer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_serializer

from ..core.graph import Node, OnError
from ..core.spec import spec
from .prompted import Prompted, check_length
from .reask import Conversation
from .schemas import JsonReader, SchemaLike, json_schema_of
from .templates import Template
from .work import Await, CellError, Render

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..core.graph import Lane
    from ..models.provider import Reply
    from .column import Binding
    from .work import Answer

_CASTS: dict[str, Callable[[str], Any]] = {"int64": int, "float64": float}


@spec
class Expression:
    """A Jinja template over other columns. `dtype` is what its text is read as."""

    name: str
    template: str
    dtype: Literal["string", "int64", "float64"] = Field(default="string", kw_only=True)
    on_error: OnError = Field(default="drop", kw_only=True)
    type: Literal["expression"] = Field(default="expression", kw_only=True)

    def __post_init__(self) -> None:
        """Compile the template."""
        self._compile()

    def _compile(self) -> Template:
        return Template(self.template, "template")

    def node(self, _lanes: Mapping[str, Lane]) -> Node:
        """Need the template's variables; no lane, as it takes microseconds."""
        return Node(self.name, self._compile().needs, on_error=self.on_error)

    def arrow_type(self) -> str:
        """Give the type that `dtype` names."""
        return self.dtype

    def bind(self, _binding: Binding) -> Render:
        """Render, and read as `dtype`."""
        render, cast = self._compile().renderer(), _CASTS.get(self.dtype)
        if cast is None:
            return Render(render)

        def read(*values: object) -> Any:
            text = render(*values)
            try:
                return cast(text)
            except ValueError as error:
                raise CellError(f"the expression gave {text!r}, which is no {self.dtype}") from error

        return Render(read)


@spec
class Text(Prompted):
    """What a model answers to a prompt, as text without the white space around it.

    An answer that is cut off at `max_tokens` is an error unless `allow_truncated`.
    """

    allow_truncated: bool = Field(default=False, kw_only=True)
    type: Literal["text"] = Field(default="text", kw_only=True)

    def arrow_type(self) -> str:
        """Text."""
        return "string"

    def reader(self, max_tokens: int | None) -> Callable[[Reply], str]:
        """Give the function that takes the value from a reply."""

        def read(reply: Reply) -> str:
            if not (self.allow_truncated and reply.text):
                check_length(reply, max_tokens)
            return reply.text.strip()

        return read


@spec
class Structured(Prompted):
    """What a model answers to a prompt, as a value that obeys `schema`: a JSON Schema or a pydantic model.

    The endpoint is asked to hold the answer to the schema where it can. An answer that does not obey, not even with
    the prose around its JSON and the slips in it taken away, is told to the model; it is asked again up to `reasks`
    times.
    """

    schema: SchemaLike
    reasks: int = Field(default=1, ge=0, kw_only=True)
    type: Literal["structured"] = Field(default="structured", kw_only=True)

    def __post_init__(self) -> None:
        """Compile the templates and the schema."""
        super().__post_init__()
        JsonReader(self.schema)

    @field_serializer("schema")
    def json_schema(self, schema: SchemaLike) -> dict[str, Any]:
        """Give the schema as plain data, also where it is a pydantic model."""
        return json_schema_of(schema)

    def answer_schema(self) -> dict[str, Any]:
        """Give what the model is told to obey."""
        return json_schema_of(self.schema)

    def arrow_type(self) -> dict[str, Any]:
        """Give the schema."""
        return json_schema_of(self.schema)

    def bind(self, binding: Binding) -> Await:
        """Compile what the cells' conversations have in common, and give that of one."""
        messages, check = self.messages(), partial(check_length, max_tokens=self.most_tokens(binding))
        hold = Conversation(self.sender(binding), self.schema, JsonReader(self.schema), self.reasks, check).hold

        async def call(*values: object) -> Answer:
            return await hold(messages(values))

        return Await(call)
