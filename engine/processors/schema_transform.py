"""SchemaTransform: a processor that writes rows of another shape, by templates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from ..columns.templates.template import Template
from ..core.errors import shown
from ..core.spec import spec
from .processor import Processor

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd


@spec
class SchemaTransform(Processor):
    """Write rows of another shape: `template` has the new columns, each a template over the old ones.

    A template is text, or a list or mapping of templates, as in
    {"messages": [{"role": "user", "content": "{{ question }}"}]}.
    """

    template: dict[str, Any] = Field(min_length=1)
    type: Literal["schema_transform"] = Field(default="schema_transform", kw_only=True)

    def __post_init__(self) -> None:
        """Compile the templates, to refuse wrong ones at once."""
        _compiled(self.template)

    def needs(self) -> list[str]:
        """Return the variables of the templates."""
        return list(dict.fromkeys(_needs(_compiled(self.template))))

    def writes(self, columns: Sequence[str]) -> list[str]:  # noqa: ARG002 - the same for all
        """Return the new columns."""
        return list(self.template)

    def after_batch(self, frame: pd.DataFrame, row_group: int) -> pd.DataFrame:  # noqa: ARG002 - the same for all
        """Render every row."""
        import pandas as pd  # noqa: PLC0415 - not at import time

        render = _compiled(self.template)
        rows = frame.to_dict("records")
        return pd.DataFrame({name: [_rendered(render[name], row) for row in rows] for name in self.template})


def _compiled(template: Any) -> Any:
    """Compile every text of a template: (Template, its renderer) takes the place of each."""
    if isinstance(template, str):
        compiled = Template(template, "template")
        if compiled.draws:
            raise ValueError("template draws at random, which a processor cannot repeat; draw in an Expression column")
        return compiled, compiled.renderer()
    if isinstance(template, dict):
        return {name: _compiled(part) for name, part in template.items()}
    if isinstance(template, list):
        return [_compiled(part) for part in template]
    raise ValueError(f"a template is text, or a list or mapping of templates, not {shown(template)}")


def _needs(compiled: Any) -> list[str]:
    if isinstance(compiled, tuple):
        return list(compiled[0].needs)
    parts = compiled.values() if isinstance(compiled, dict) else compiled
    return [need for part in parts for need in _needs(part)]


def _rendered(compiled: Any, row: dict[Any, Any]) -> Any:
    if isinstance(compiled, tuple):
        template, render = compiled
        return render(*[row[need] for need in template.needs])
    if isinstance(compiled, dict):
        return {name: _rendered(part, row) for name, part in compiled.items()}
    return [_rendered(part, row) for part in compiled]
