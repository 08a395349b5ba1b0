"""Prompted: what columns that ask a model have in common: prompts, parameters, a time limit, the call of one cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from ..core.bounds import Pace
from ..core.errors import ModelError, RecipeError, nearest
from ..core.graph import Node, OnError
from ..core.spec import spec
from ..models.deadline import Deadline
from ..models.provider import ChatParameters
from ..models.usage import usage_of
from ..models.verdict import Judge, cut_off, outcome_of
from .column import Column
from .images import image_parts
from .reasoning import Reasoning
from .templates.drawn import draw_of
from .templates.template import Template
from .work import Answer, Await

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import TypeAlias

    from ..core.graph import Lane
    from ..models.model import Model
    from ..models.provider import Message, Reply
    from .column import Binding

    Send: TypeAlias = Callable[[list[Message]], Awaitable[tuple[Reply, float]]]
    """One request, within the time limit: from messages to a reply and the seconds it took."""


_LETTERS = 4
"""Letters per token, roughly."""


@spec
class Prompted(Column):
    """A column whose cells are a model's answers.

    `prompt` and `system` are Jinja templates; their variables are the columns it needs. `stop`, `max_tokens` and
    `temperature` override the model's. `images` names columns whose images are sent with the prompt: bytes, http(s) or
    data URLs, or lists of those. `reasoning` names a separate column for the model's reasoning, where the endpoint
    reports it.

    A kind with values of its own overrides `reader`; one with another sequence of requests overrides `bind`.
    """

    model: str
    prompt: str
    images: list[str] = Field(default_factory=list, kw_only=True)
    reasoning: str | None = Field(default=None, kw_only=True)
    system: str | None = Field(default=None, kw_only=True)
    stop: list[str] = Field(default_factory=list, kw_only=True)
    max_tokens: int | None = Field(default=None, ge=1, kw_only=True)
    temperature: float | None = Field(default=None, ge=0, kw_only=True)
    on_error: OnError = Field(default="drop", kw_only=True)

    def __post_init__(self) -> None:
        """Compile the templates, to refuse wrong ones at once, and a prompt that is always empty."""
        (*_, (_, prompt)) = self._templates()
        if not self.images:
            check_not_empty(prompt, "prompt")

    @property
    def model_alias(self) -> str:
        """The model that gives the answers."""
        return self.model

    @property
    def obeys_schema(self) -> bool:
        """Whether there is a schema for the answers."""
        return self.answer_schema() is not None

    def expand(self) -> Sequence[Column]:
        """Return this column, and the one for its reasoning."""
        return [self] if self.reasoning is None else [self, Reasoning(self.reasoning, self.name)]

    def node(self, lanes: Mapping[str, Lane]) -> Node:
        """Need the templates' variables, in the lane of the model."""
        lane = lane_of(self.name, self.model, lanes)
        return Node(self.name, tuple(self._needs()), lane=lane, on_error=self.on_error)

    def bind(self, binding: Binding) -> Await:
        """Compile what the column's calls have in common, and return the call of one cell."""
        send, read = self.sender(binding), self.reader(self.most_tokens(binding))

        async def ask(messages: list[Message]) -> Answer:
            reply, seconds = await send(messages)
            usage = usage_of(reply, seconds)
            try:
                return Answer(read(reply), usage, reply.reasoning)
            except ModelError as error:
                error.usage = usage
                raise

        return self.asking(binding, ask)

    def asking(
        self, binding: Binding, ask: Callable[[list[Message]], Awaitable[Answer]], *, fits: bool = False
    ) -> Await:
        """Return the call of one cell, which renders the messages and then asks.

        Costly templates are rendered in a thread, others on the spot.
        """
        messages = self.messages(binding)
        # An answer in the response cache is known by how many equal requests there were before: two would be two cells.
        hedged = binding.models[self.model].hedge and binding.cache is None
        if not any(template.costly for _, template in self._templates()):
            return Await(lambda *values: ask(messages(values)), numbered=self.draws, fits=fits, hedged=hedged)
        render = binding.off_loop(messages)

        async def call(*values: object) -> Answer:
            return await ask(await render(values))

        return Await(call, numbered=self.draws, fits=fits, hedged=hedged)

    def sender(self, binding: Binding) -> Send:
        """Compile what the column's requests have in common, and return the call of one request.

        The call raises ModelError for a reply that is no answer.
        """
        model, max_tokens = binding.models[self.model], self.most_tokens(binding)
        judge = self.judge(model, max_tokens)
        parameters = self._parameters(model, max_tokens)
        ask = binding.connected[self.model].chat(parameters)
        if binding.cache is not None:
            ask = binding.cache.wrap(ask, model.lane, parameters, judge.accepts)
        enforce = Deadline(model.timeout).enforce
        check = size_check(model, max_tokens)
        if check is None:
            return lambda messages: enforce(ask(messages), judge, messages)

        def send(messages: list[Message]) -> Awaitable[tuple[Reply, float]]:
            check(messages)
            return enforce(ask(messages), judge, messages)

        return send

    def templates(self) -> dict[str, Template]:
        """Return the templates of the messages."""
        fields = {"user": "prompt"}
        return {fields.get(role, role): template for role, template in self._templates()}

    def answer_schema(self) -> dict[str, Any] | None:
        """Return the JSON Schema that answers must obey, None for text."""
        return None

    def reader(self, max_tokens: int | None) -> Callable[[Reply], Any]:
        """Return the function from a complete answer to the cell's value. It raises ModelError for an unusable one.

        By default the value is the text. `max_tokens` is the limit of the answer, for messages.
        """
        del max_tokens
        return lambda reply: reply.text.strip()

    def judge(self, model: Model, max_tokens: int | None) -> Judge:
        """Return the judge of the column's replies, which accepts complete answers with text."""
        return Judge.of(model, max_tokens)

    def _templates(self) -> list[tuple[str, Template]]:
        """Return the templates, each with the role of its message."""
        system = [] if self.system is None else [("system", Template(self.system, "system"))]
        return [*system, ("user", Template(self.prompt, "prompt"))]

    def _needs(self) -> list[str]:
        """Return the columns whose values are in the messages."""
        return list(dict.fromkeys([*(need for _, t in self._templates() for need in t.needs), *self.images]))

    def most_tokens(self, binding: Binding) -> int | None:
        """Return the most tokens of an answer; None where neither the column nor its model sets a limit."""
        return binding.models[self.model].max_tokens if self.max_tokens is None else self.max_tokens

    def _parameters(self, model: Model, max_tokens: int | None) -> ChatParameters:
        return ChatParameters(
            temperature=model.temperature if self.temperature is None else self.temperature,
            max_tokens=max_tokens,
            stop=tuple(self.stop),
            schema=self.answer_schema(),
            extra=model.extra,
        )

    @property
    def draws(self) -> bool:
        """Whether something in the messages is random. The call of a cell then takes the row's number last."""
        return any(template.draws for _, template in self._templates())

    def messages(self, binding: Binding | None = None) -> Callable[[tuple[object, ...]], list[Message]]:
        """Return the function from the values of the needs to messages.

        Give the binding, and `Await(..., numbered=self.draws)`, so that templates may draw.
        """
        needs, templates = self._needs(), self._templates()
        number = [] if binding is None else [len(needs)]
        parts = [
            (
                role,
                template.renderer(None if binding is None else draw_of(binding.seed, f"{self.name}/{role}"), self.name),
                [*(needs.index(need) for need in template.needs), *(number if template.draws else ())],
            )
            for role, template in templates
        ]
        if len(parts) == 1 and not self.images:
            render = parts[0][1]
            return lambda values: [{"role": "user", "content": not_empty(render(*values))}]

        def messages(values: tuple[object, ...]) -> list[Message]:
            made: list[Message] = [
                {"role": role, "content": render(*[values[i] for i in which])} for role, render, which in parts
            ]
            return [message for message in made if message["role"] != "system" or not _is_empty(message["content"])]

        if not self.images:

            def with_text(values: tuple[object, ...]) -> list[Message]:
                made = messages(values)
                not_empty(made[-1]["content"])
                return made

            return with_text
        images = [(name, needs.index(name)) for name in self.images]

        def with_images(values: tuple[object, ...]) -> list[Message]:
            made = messages(values)
            seen = [part for name, i in images for part in image_parts(name, values[i])]
            if seen:
                text = [] if _is_empty(made[-1]["content"]) else [{"type": "text", "text": made[-1]["content"]}]
                made[-1]["content"] = [*text, *seen]
            else:
                not_empty(made[-1]["content"])
            return made

        return with_images


def lane_of(column: str, model: str, lanes: Mapping[str, Lane]) -> Lane:
    """Return the lane of the model that a column asks; raises RecipeError with the nearest right name."""
    if model not in lanes:
        raise RecipeError(f"columns.{column}.model", f"unknown model '{model}'; {nearest(model, lanes)}")
    return lanes[model]


def size_check(model: Model, max_tokens: int | None) -> Callable[[list[Message]], None] | None:
    """Return the function that refuses a request larger than a minute's tokens, which would wait for ever."""
    if model.tokens_per_minute is None:
        return None
    pace = Pace(tokens_per_minute=model.tokens_per_minute)

    def check(messages: list[Message]) -> None:
        letters = sum(len(message["content"]) for message in messages if isinstance(message["content"], str))
        problem = pace.refusal(letters / _LETTERS + (max_tokens or 0))
        if problem is not None:
            raise ModelError(problem, kind="too_large", retryable=False)

    return check


def check_not_empty(template: Template, field: str) -> None:
    """Raise ValueError for a template that renders to nothing in every row."""
    constant = template.constant
    if constant is not None and _is_empty(constant):
        raise ValueError(f"{field} is empty, so nothing would be sent")


def not_empty(text: str) -> str:
    """Return the text to send; raises ModelError for one of white space alone, which would be paid for."""
    if _is_empty(text):
        raise ModelError("the prompt renders to nothing, so nothing is sent", kind="empty_prompt", retryable=False)
    return text


def _is_empty(text: str) -> bool:
    return not text or text.isspace()


def check_length(reply: Reply, max_tokens: int | None) -> None:
    """Refuse an answer that was cut off. Columns need not call it: their replies are judged before they are read."""
    if outcome_of(reply.finish_reason) == "cut":
        raise cut_off(reply, max_tokens)
