"""metadata.json: one contract for every way a run can end."""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

import msgspec

SCHEMA_VERSION: Final = 1

Status: TypeAlias = Literal["running", "complete", "partial", "cancelled", "failed"]


class ColumnMetadata(msgspec.Struct, frozen=True):
    """What came of one column's cells, and what its model was asked for."""

    name: str
    type: str
    completed: int
    failed: int
    skipped: int
    requests: int
    prompt_tokens: int
    completion_tokens: int


class PartMetadata(msgspec.Struct, frozen=True):
    """One committed row group. `start` is the run's row number of its first row; a preview has no `file`."""

    row_group: int
    start: int
    rows: int
    file: str | None


class Metadata(msgspec.Struct, frozen=True):
    """A run, told so that it can be understood and repeated. Times are ISO 8601 in UTC, durations in seconds."""

    schema_version: int
    rowloop_version: str
    kind: Literal["build", "preview"]
    engine: Literal["async", "sequential"]
    status: Status
    target_num_records: int
    actual_num_records: int
    dropped_num_records: int
    row_group_size: int
    seed: int
    recipe_fingerprint: str
    recipe: dict[str, Any]
    columns: list[ColumnMetadata]
    parts: list[PartMetadata]
    row_groups_cut_short: list[int]
    early_shutdown: bool
    error: str | None
    retries: int
    failures: dict[str, int]
    """How many cells failed, by error class."""
    started_at: str
    finished_at: str | None
    elapsed: float

    def to_json(self) -> bytes:
        """Give the file's text."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    def to_dict(self) -> dict[str, Any]:
        """Give plain data."""
        return dict(msgspec.to_builtins(self))


def json_schema() -> dict[str, Any]:
    """Give the JSON Schema of metadata.json."""
    return msgspec.json.schema(Metadata)
