"""metadata.json: one contract for every way a run can end."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from ..telemetry.spending import Spent, StructuredCounts, added_up, by_model
from .journal_records import Kept  # noqa: TC001 - msgspec reads it when it decodes

SCHEMA_VERSION: Final = 1

Status: TypeAlias = Literal["running", "complete", "partial", "cancelled", "failed"]


NonNegative: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Moment: TypeAlias = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
Dollars: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]


class ColumnMetadata(msgspec.Struct, frozen=True):
    """The cells of one column, by how they ended, and the requests to its model.

    `cost` is None if it is not known; `structured` is None for a column without a JSON Schema. Files of rowloop 0.1
    have neither `known_cost`, the cost of those requests whose cost is known, nor `cached_tokens`. `hedges` of the
    requests were second requests for slow cells, and `hedges_won` of these gave the answer.
    """

    name: str
    type: str
    model: str | None
    completed: NonNegative
    failed: NonNegative
    skipped: NonNegative
    requests: NonNegative
    prompt_tokens: NonNegative
    completion_tokens: NonNegative
    cost: Dollars | None
    structured: StructuredCounts | None
    known_cost: Dollars | None = None
    cached_tokens: NonNegative = 0
    hedges: NonNegative = 0
    hedges_won: NonNegative = 0

    @property
    def spent(self) -> Spent:
        """The requests, tokens and cost."""
        return Spent(
            requests=self.requests,
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cost=self.cost,
            known_cost=self.known_cost,
            cached_tokens=self.cached_tokens,
            hedges=self.hedges,
            hedges_won=self.hedges_won,
        )


class PartMetadata(msgspec.Struct, frozen=True):
    """One committed row group. `start` is the run's row number of its first row; a preview has no `file`."""

    row_group: NonNegative
    start: NonNegative
    rows: NonNegative
    file: str | None
    checksum: str | None = None
    """The SHA-256 of the file, as "sha256:" and hexadecimal digits; None where it is not known."""


class Metadata(msgspec.Struct, frozen=True):
    """A run in enough detail to understand and repeat it. Times are ISO 8601 in UTC, durations in seconds."""

    schema_version: int
    rowloop_version: str
    kind: Literal["build", "preview"]
    engine: Literal["async", "sequential"]
    status: Status
    target_num_records: NonNegative
    actual_num_records: NonNegative
    dropped_num_records: NonNegative
    row_group_size: Annotated[int, msgspec.Meta(ge=1)]
    seed: int
    recipe_fingerprint: str
    recipe: dict[str, Any]
    columns: list[ColumnMetadata]
    parts: list[PartMetadata]
    row_groups_cut_short: list[NonNegative]
    early_shutdown: bool
    budget_spent: bool
    """Whether the run ended because its budget was spent."""
    error: str | None
    retries: NonNegative
    failures: dict[str, NonNegative]
    """The number of failed cells, by error class."""
    cost: Dollars | None
    """None if the cost of a request is not known; the columns have the known costs."""
    started_at: Moment
    finished_at: Moment | None
    elapsed: Seconds
    reason: str | None = None
    """Why the run ended before every row was worked; None if it worked them all. Older files do not have it."""
    kept: Kept | None = None
    """What a later run needs, where the journal is gone; None while there is one."""

    @property
    def usage_by_column(self) -> dict[str, Spent]:
        """What each column with a model has spent."""
        return {column.name: column.spent for column in self.columns if column.model is not None}

    @property
    def usage_by_model(self) -> dict[str, Spent]:
        """What the columns of each model have spent together."""
        return by_model((column.model, column.spent) for column in self.columns if column.model is not None)

    @property
    def usage(self) -> Spent:
        """What all columns have spent together."""
        return added_up(self.usage_by_column.values())

    @property
    def structured_by_column(self) -> dict[str, StructuredCounts]:
        """How the answers of each structured column came to obey its schema."""
        return {column.name: column.structured for column in self.columns if column.structured is not None}

    def to_json(self) -> bytes:
        """Return the text of the file."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    def to_dict(self) -> dict[str, Any]:
        """Return what the file has, as plain data."""
        return dict(msgspec.json.decode(msgspec.json.encode(self)))


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of metadata.json: all fields are required, and no others are allowed."""
    schema = msgspec.json.schema(Metadata)
    for definition in schema["$defs"].values():
        definition["required"] = list(definition["properties"])
        definition["additionalProperties"] = False
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
