"""Embedding: a column of the vectors that a model gives to texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ..core.errors import ModelError, RecipeError
from ..core.events import Usage
from ..core.graph import Node, OnError
from ..core.spec import spec
from ..core.store import Vector
from ..models.deadline import Deadline
from ..models.provider import Embedder, EmbeddingParameters
from .column import Column
from .prompted import check_not_empty, lane_of, not_empty, size_check
from .templates.drawn import draw_of
from .templates.template import Template
from .work import Answer, Await

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import pyarrow as pa

    from ..core.graph import Lane
    from .column import Binding


@spec
class Embedding(Column):
    """The vector that a model gives to a text, as a list of 32-bit floats.

    `text` is a Jinja template; its variables are the columns it needs. `dimensions` is the length of the vectors, for
    models that can shorten them. Up to `batch_size` cells that are ready at once share a request.
    """

    model: str
    text: str
    dimensions: int | None = Field(default=None, ge=1, kw_only=True)
    batch_size: int = Field(default=1, ge=1, kw_only=True)
    on_error: OnError = Field(default="drop", kw_only=True)
    type: Literal["embedding"] = Field(default="embedding", kw_only=True)

    def __post_init__(self) -> None:
        """Compile the template, to refuse a wrong one at once, and one that is always empty."""
        check_not_empty(self._compile(), "text")

    def _compile(self) -> Template:
        return Template(self.text, "text")

    def templates(self) -> dict[str, Template]:
        """Return the template of the text."""
        return {"text": self._compile()}

    @property
    def model_alias(self) -> str:
        """The model that gives the vectors."""
        return self.model

    def identity(self) -> dict[str, Any]:
        """Leave out the batch size: it does not change the vectors."""
        return {field: value for field, value in super().identity().items() if field != "batch_size"}

    def node(self, lanes: Mapping[str, Lane]) -> Node:
        """Need the template's variables, in the lane of the model."""
        lane = lane_of(self.name, self.model, lanes)
        return Node(self.name, self._compile().needs, lane=lane, on_error=self.on_error)

    def arrow_type(self) -> pa.DataType:
        """Return a list of 32-bit floats."""
        import pyarrow as pa  # noqa: PLC0415 - not at import time

        return pa.list_(pa.float32())

    def bind(self, binding: Binding) -> Await:
        """Compile what the column's calls have in common, and return the call of one cell."""
        model, connected = binding.models[self.model], binding.connected[self.model]
        if not isinstance(connected, Embedder):
            problem = (
                f"{model.lane} has no embeddings; use an openai: model, at any endpoint that has them, or a function"
            )
            raise RecipeError(f"columns.{self.name}.model", problem)
        embed = connected.embed(EmbeddingParameters(self.dimensions, self.batch_size, model.extra))
        template, check, checked = self._compile(), size_check(model, None), self._checking()
        render = template.renderer(draw_of(binding.seed, self.name), self.name)
        enforce = Deadline(model.timeout).enforce

        async def embedded_text(text: str) -> Answer:
            not_empty(text)
            if check is not None:
                check([{"content": text}])
            embedded, seconds = await enforce(embed(text), key=text)
            usage = Usage(embedded.prompt_tokens, 0, seconds, embedded.billing)
            try:
                return Answer(checked(embedded.vector), usage)
            except ModelError as error:
                error.usage = usage
                raise

        if not template.costly:
            return Await(
                lambda *values: embedded_text(render(*values)), numbered=template.draws, fits=True, vectors=True
            )
        render_off_loop = binding.off_loop(render)

        async def call(*values: object) -> Answer:
            return await embedded_text(await render_off_loop(*values))

        return _vectors(call, template)

    def _checking(self) -> Callable[[list[float] | Vector], Vector]:
        """Return the function from what a provider gives to a vector.

        It refuses an empty one, numbers that are not finite, and any length but `dimensions`.
        """
        import numpy as np  # noqa: PLC0415 - not at import time

        all_of = np.logical_and.reduce

        def checked(given: list[float] | Vector) -> Vector:
            vector = given if type(given) is Vector else Vector.of(given)
            if not vector or not all_of(np.isfinite(np.frombuffer(vector, np.float32))):
                problem = "the vector has numbers that are not finite" if vector else "the vector is empty"
                raise ModelError(problem, kind="invalid_output", retryable=False)
            if self.dimensions is not None and len(vector) != self.dimensions:
                problem = f"the vector has {len(vector)} numbers, not {self.dimensions}; leave `dimensions` out"
                raise ModelError(problem, kind="invalid_output", retryable=False)
            return vector

        return checked


def _vectors(call: Callable[..., Awaitable[Answer]], text: Template) -> Await:
    return Await(call, numbered=text.draws, fits=True, vectors=True)
