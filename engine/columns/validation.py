"""Validate: a column that says of each row whether it is valid, by a Python function, in SQL, or asked over a network.

The engine knows no network: what asks is looked up by the scheme of the URL among `validators`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias
from urllib.parse import SplitResult, urlsplit

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from ..core.errors import RecipeError
from ..core.graph import Lane, Node, OnError
from ..core.registry import Registry
from ..core.spec import spec
from ..models.deadline import Deadline
from ..models.model import Timeout
from .functions import AnyFunction, Function, cell
from .microbatch import Together
from .sql_condition import Condition
from .work import Await, CellError, InThread, Invalid

if TYPE_CHECKING:
    from .column import Binding

_MOST_TOGETHER = 1024
"""Rows that SQL is asked about at once, at most."""
_MOST_REMOTE, _FIRST_REMOTE = 64, 16
"""Requests in flight at a remote validator, where nothing is said: at most, and at first."""

_SETTINGS = {
    "check": {"max_parallel"},
    "sql": set[str](),
    "url": {"needs", "max_parallel", "timeout", "api_key_env"},
}
"""The kinds, and the fields that say more about one."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a validator says of a row; the reason may be empty."""

    valid: bool
    reason: str = ""


AskVerdict: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[Verdict]]
"""One row, as its needed columns, to the verdict. Raises ModelError, and nothing else but cancellation."""


class RemoteValidator(Protocol):
    """Who asks validators at URLs of one scheme."""

    def connect(self, url: str, api_key_env: str | None) -> AskVerdict:
        """Compile what all the requests of one column have in common, on the runtime's loop.

        Raises RecipeError for what is missing. `api_key_env` names the variable that holds the key.
        """
        ...


validators: Registry[RemoteValidator] = Registry("scheme of a validator's url", entry_points="rowloop.validators")


@spec
class Validate:
    """Whether a row is valid, as true or false. Exactly one of `check`, `sql` and `url` says so.

    `check`: a function, synchronous or not, whose parameters name the columns it needs. It returns True, False, or a
    text that says what is wrong with the row. `sql`: a DuckDB expression over the row's columns (needs
    "rowloop[sql]"); NULL counts as false. `url`: an address to which the columns in `needs` are posted as one JSON
    object for each row, and which answers {"valid": true} or {"valid": false, "reason": "..."}; `timeout` is the
    total time of one attempt in seconds, or "auto", and `api_key_env` names the variable whose value goes with the
    requests as a bearer token.

    With `drop_invalid`, rows that are not valid are dropped, with the reason in the failures; else they stay. A row
    for which the validator itself fails is no invalid one: `on_error` says what becomes of it. `max_parallel` is the
    most calls or requests at once.
    """

    name: str
    check: SkipJsonSchema[AnyFunction | None] = Field(default=None, kw_only=True, exclude=True)
    sql: str | None = Field(default=None, kw_only=True)
    url: str | None = Field(default=None, kw_only=True)
    needs: list[str] = Field(default_factory=list, kw_only=True)
    drop_invalid: bool = Field(default=False, kw_only=True)
    max_parallel: int | None = Field(default=None, ge=1, kw_only=True)
    timeout: Timeout = Field(default="auto", kw_only=True)
    api_key_env: str | None = Field(default=None, kw_only=True)
    on_error: OnError = Field(default="drop", kw_only=True)
    type: Literal["validate"] = Field(default="validate", kw_only=True)

    def __post_init__(self) -> None:
        """Refuse no kind and two, what is for another kind, and what the kind itself cannot use."""
        given = [kind for kind in _SETTINGS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"takes one of check (a function), sql and url, and has {' and '.join(given) or 'none'}")
        fields: Mapping[str, Any] = vars(type(self))["__dataclass_fields__"]
        for field in sorted(_SETTINGS["url"] - _SETTINGS[given[0]]):
            default = [] if field == "needs" else fields[field].default.default
            if getattr(self, field) != default:
                raise ValueError(f"{field} is not for {given[0]}, only for url")
        if self.drop_invalid and self.on_error != "drop":
            raise ValueError(f'drop_invalid drops rows, and on_error="{self.on_error}" does not; leave one of them out')
        if self.url is not None:
            self._check_url(self.url)
        else:
            self._inner()

    def node(self, _lanes: Mapping[str, Lane]) -> Node:
        """Need the function's parameters, the expression's columns, or what `needs` says, in a lane of its own."""
        return Node(self.name, self._needs(), lane=self._lane(), on_error=self.on_error)

    def arrow_type(self) -> str:
        """Say that values are true or false."""
        return "bool"

    def bind(self, binding: Binding) -> Await | InThread:
        """Give the work of one cell."""
        inner = self._inner()
        if isinstance(inner, Function):
            return self._checking(inner, binding)
        return self._asking() if inner is None else self._selecting(inner, binding)

    def _inner(self) -> Function | Condition | None:
        """Give what is to tell, None for a remote validator; raises ValueError for what cannot."""
        if self.sql is not None:
            return Condition.parse(self.sql)
        if self.check is None:
            return None
        try:
            return cell(self.check, name=self.name, max_parallel=self.max_parallel)
        except RecipeError as error:
            raise ValueError(f"check: {error.problem}") from None

    def _needs(self) -> tuple[str, ...]:
        inner = self._inner()
        return tuple(self.needs if inner is None else inner.needs)

    def _lane(self) -> Lane:
        inner, name = self._inner(), f"validate {self.name}"
        if isinstance(inner, Function):
            return Lane(name, inner.parallel)
        if inner is None:
            return Lane(name, self.max_parallel or _MOST_REMOTE, start=self.max_parallel or _FIRST_REMOTE)
        return Lane(name, _MOST_TOGETHER)

    def _checking(self, function: Function, binding: Binding) -> Await | InThread:
        work = function.bind(binding)
        if isinstance(work, InThread):
            call = work.function
            return InThread(lambda *values: self._value(_read(call(*values))))
        assert isinstance(work, Await)  # noqa: S101 - a function of cells is one of the two
        ask = work.call

        async def check(*values: object) -> bool:
            return self._value(_read(await ask(*values)))

        return Await(check, foreign=True)

    def _selecting(self, condition: Condition, binding: Binding) -> Await:
        together = Together(binding.threads, condition.selector())

        async def select(*values: object) -> bool:
            found = await together.call(values)
            if isinstance(found, Exception):
                raise CellError from found
            return self._value(Verdict(found is True, f"{self.sql} is {'NULL' if found is None else 'false'}"))

        return Await(select)

    def _asking(self) -> Await:
        url, needs = str(self.url), self.needs
        try:
            ask = validators.get(url.partition(":")[0]).connect(url, self.api_key_env)
        except RecipeError as error:
            raise RecipeError(f"columns.{self.name}.{error.path or 'url'}", error.problem) from None
        hold = Deadline(self.timeout).hold

        async def call(*values: object) -> bool:
            verdict, _ = await hold(ask(dict(zip(needs, values, strict=True))))
            return self._value(verdict)

        return Await(call)

    def _value(self, verdict: Verdict) -> bool:
        if self.drop_invalid and not verdict.valid:
            raise CellError from Invalid(verdict.reason or "the validator gives no reason")
        return verdict.valid

    def _check_url(self, url: str) -> None:
        parts = _parts(url)
        if parts is None:
            shown = url.partition("?")[0].rpartition("@")[2]  # a key may be in the rest
            raise ValueError(f"url is no address of a validator: {shown!r:.80}; write https://HOST/PATH")
        if parts.username is not None:
            raise ValueError("url must not hold a name and password; name the variable of a key in api_key_env")
        if not self.needs:
            raise ValueError("needs is missing: it lists the columns that are sent to the url")


def _parts(url: str) -> SplitResult | None:
    """Take an address apart, or return None if it is none."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.scheme and parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, brackets that are not closed
        return None
    return parts if usable else None


def _read(given: object) -> Verdict:
    """Read what a function of the user's returned; numpy's booleans are booleans."""
    item = getattr(given, "item", None)
    value = item() if item is not None and type(given).__name__ == "bool" else given
    if isinstance(value, bool):
        return Verdict(value, "the check says so")
    if isinstance(value, str):
        return Verdict(valid=False, reason=value)
    problem = f"the check returned a {type(given).__name__}; it returns True, False, or a text that says what is wrong"
    raise CellError(problem)
