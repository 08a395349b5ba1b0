"""metadata.json: one contract for every way a run can end."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from ..telemetry.spending import StructuredCounts  # noqa: TC001 - msgspec reads metadata.json by it

SCHEMA_VERSION: Final = 1

Status: TypeAlias = Literal["running", "complete", "partial", "cancelled", "failed"]


NonNegative: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Moment: TypeAlias = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
Dollars: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]


class ColumnMetadata(msgspec.Struct, frozen=True):
    """What came of one column's cells, and what its model was asked for.

    A `cost` that is not known is None; so is `structured`, where the column is not.
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


class PartMetadata(msgspec.Struct, frozen=True):
    """One committed row group. `start` is the run's row number of its first row; a preview has no `file`."""

    row_group: NonNegative
    start: NonNegative
    rows: NonNegative
    file: str | None


class Metadata(msgspec.Struct, frozen=True):
    """A run, told so that it can be understood and repeated. Times are ISO 8601 in UTC, durations in seconds."""

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
    """Whether the run ended because it had cost what it was allowed to."""
    error: str | None
    retries: NonNegative
    failures: dict[str, NonNegative]
    """How many cells failed, by error class."""
    cost: Dollars | None
    """None if some model's price is not known; what is known stands in the columns."""
    started_at: Moment
    finished_at: Moment | None
    elapsed: Seconds

    def to_json(self) -> bytes:
        """Give the file's text."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    def to_dict(self) -> dict[str, Any]:
        """Give plain data."""
        return dict(msgspec.to_builtins(self))


def json_schema() -> dict[str, Any]:
    """Give the JSON Schema of metadata.json: all of its fields are needed, and there are no others."""
    schema = msgspec.json.schema(Metadata)
    for definition in schema["$defs"].values():
        definition["additionalProperties"] = False
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
