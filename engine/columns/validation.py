"""Validate: whether each row is valid, by a Python function, in SQL, or at a URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from ..core.errors import CellError, Invalid, RecipeError
from ..core.graph import Lane, Node, OnError
from ..core.spec import plain, spec
from ..models.deadline import Deadline
from ..models.model import Timeout
from .code_hash import code_of
from .column import Column
from .decorators import cell
from .functions import AnyFunction, Function
from .microbatch import MicroBatcher, in_thread
from .reasoning import Reason
from .sql_condition import Condition
from .validators import Verdict, validators
from .work import Answer, Await, InThread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .column import Binding

_MOST_TOGETHER = 1024
"""The most rows in one SQL query."""
_MOST_REMOTE, _FIRST_REMOTE = 64, 16
"""Requests in flight at a remote validator without `max_parallel`: the most, and the number to start with."""

_SETTINGS = {
    "check": {"max_parallel"},
    "sql": set[str](),
    "url": {"needs", "max_parallel", "timeout", "api_key_env"},
}
"""The three ways to validate, and the fields that apply to each."""

_HOW_TO_ASK = {"max_parallel", "timeout", "api_key_env"}
"""Fields that do not decide the values."""


@spec
class Validate(Column):
    """Whether a row is valid, as true or false. Takes exactly one of `check`, `sql` and `url`.

    `check`: a function, synchronous or not, whose parameters name the columns it needs. It returns True, False, or a
    text that says what is wrong with the row. `sql`: a DuckDB expression over the row's columns (needs
    "rowloop[sql]"); NULL counts as false. `url`: an address to which the columns in `needs` are posted as one JSON
    object per row, and which answers {"valid": true} or {"valid": false, "reason": "..."}; `timeout` is the total time
    of one attempt in seconds, or "auto", and `api_key_env` names the variable whose value is sent as a bearer token.

    The column `NAME_reason` beside the verdict says why a row is invalid; it is null for a valid one. With
    `drop_invalid`, invalid rows are dropped, and the failures table has the reason; otherwise they stay. If the
    validator itself fails, the row counts as neither valid nor invalid, and `on_error` applies. `max_parallel` is the
    most calls or requests at once.
    """

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
        """Refuse none or several of the three, fields that do not apply, and what the validator cannot use."""
        given = [kind for kind in _SETTINGS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"takes one of check (a function), sql and url, and has {' and '.join(given) or 'none'}")
        changed = plain(self)
        for field in sorted(_SETTINGS["url"] - _SETTINGS[given[0]]):
            if field in changed:
                others = [kind for kind, fields in _SETTINGS.items() if field in fields]
                raise ValueError(f"{field} does not apply to {given[0]}, only to {' and '.join(others)}")
        if self.drop_invalid and self.on_error != "drop":
            raise ValueError(f'drop_invalid drops rows, and on_error="{self.on_error}" does not; leave one of them out')
        if self.url is not None:
            self._check_url(self.url)
        else:
            self._inner()

    def expand(self) -> Sequence[Column]:
        """Return this column, and the one for the reasons."""
        return [self, Reason(f"{self.name}_reason", self.name)]

    def identity(self) -> dict[str, Any]:
        """Leave out how the validator is asked, and add a hash of the function's code."""
        fields = {field: value for field, value in super().identity().items() if field not in _HOW_TO_ASK}
        return {**fields, **code_of(self.check)}

    def node(self, _lanes: Mapping[str, Lane]) -> Node:
        """Need the function's parameters, the expression's columns, or `needs`, in a lane of its own."""
        return Node(self.name, self._needs(), lane=self._lane(), on_error=self.on_error)

    def arrow_type(self) -> str:
        """Return bool."""
        return "bool"

    def bind(self, binding: Binding) -> Await | InThread:
        """Return the work of one cell."""
        inner = self._inner()
        if isinstance(inner, Function):
            return self._checking(inner, binding)
        return self._asking() if inner is None else self._selecting(inner, binding)

    def _inner(self) -> Function | Condition | None:
        """Return what decides here, None for a remote validator; raises ValueError for what cannot decide."""
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
            return InThread(lambda *values: self._answer(_read(call(*values))))
        assert isinstance(work, Await)  # noqa: S101 - a function of cells is one of the two
        ask = work.call

        async def check(*values: object) -> Answer:
            return self._answer(_read(await ask(*values)))

        return Await(check, foreign=True, fits=True)

    def _selecting(self, condition: Condition, binding: Binding) -> Await:
        # One call at a time: a connection of DuckDB's serves one thread.
        batcher = MicroBatcher(in_thread(binding.threads, condition.selector()), size=_MOST_TOGETHER, parallel=1)

        async def select(*values: object) -> Answer:
            found = await batcher.call(values)
            if isinstance(found, Exception):
                raise CellError from found
            return self._answer(Verdict(found is True, f"{self.sql} is {'NULL' if found is None else 'false'}"))

        return Await(select, fits=True)

    def _asking(self) -> Await:
        url, needs = str(self.url), self.needs
        try:
            ask = validators.get(url.partition(":")[0]).connect(url, self.api_key_env)
        except RecipeError as error:
            raise RecipeError(f"columns.{self.name}.{error.path or 'url'}", error.problem) from None
        enforce = Deadline(self.timeout).enforce

        async def call(*values: object) -> Answer:
            verdict, _ = await enforce(ask(dict(zip(needs, values, strict=True))), key=values)
            return self._answer(verdict)

        return Await(call, fits=True)

    def _answer(self, verdict: Verdict) -> Answer:
        """Return the verdict and the reason beside it; raises CellError for a row to drop."""
        if verdict.valid:
            return Answer(True)  # noqa: FBT003 - the value of a cell
        reason = verdict.reason or "the validator gave no reason"
        if self.drop_invalid:
            raise CellError from Invalid(reason)
        return Answer(False, beside=reason)  # noqa: FBT003 - the value of a cell

    def _check_url(self, url: str) -> None:
        parts = _parts(url)
        if parts is None:
            shown = url.partition("?")[0].rpartition("@")[2]  # a key may be in the rest
            raise ValueError(f"url is not the address of a validator: {shown!r:.80}; write https://HOST/PATH")
        if parts.username is not None:
            raise ValueError("url must not contain a user name and password; name the key's variable in api_key_env")
        if not self.needs:
            raise ValueError("needs is missing: list the columns to send to the url")


def _parts(url: str) -> SplitResult | None:
    """Split an address into its parts; return None for anything else."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.scheme and parts.hostname) and parts.port != 0
    except ValueError:  # a port that is not a number, unclosed brackets
        return None
    return parts if usable else None


def _read(returned: object) -> Verdict:
    """Read the value that a user's function returned; numpy's booleans are booleans."""
    item = getattr(returned, "item", None)
    value = item() if item is not None and type(returned).__name__ == "bool" else returned
    if isinstance(value, bool):
        return Verdict(value, "the check returned False")
    if isinstance(value, str):
        return Verdict(valid=False, reason=value)
    name = type(returned).__name__
    raise CellError(f"the check returned a {name}; it must return True, False, or a text that says what is wrong")
