"""Identity: the part of a recipe that decides its table, as plain data, and the differences between two of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ..columns.code_hash import code_of, hash_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..columns.column import ColumnSpec
    from ..models.model import Model
    from ..processors.processor import Processor

_HOW_TO_CALL = frozenset(
    {
        "base_url",
        "api_key_env",
        "headers_env",
        "max_parallel",
        "requests_per_minute",
        "tokens_per_minute",
        "timeout",
        "hedge",
        "price",
    }
)
"""Fields of a model that say where, how fast and at what price it is asked. They do not decide its answers."""

_HASHES = frozenset({"code", "data"})


def identity_of(
    description: Mapping[str, Any],
    models: Mapping[str, Model],
    columns: Sequence[ColumnSpec],
    processors: Sequence[Processor],
) -> dict[str, Any]:
    """Return the part of a recipe that decides its table.

    That includes the code of functions and a digest of seed data. The address of a model and how it is asked are left
    out.
    """
    identities = {column.known_as: column.identity() for column in columns}
    return {
        "seed": description.get("seed"),
        "models": {alias: _model(description["models"][alias], model) for alias, model in models.items()},
        "columns": {**identities, "order": list(identities)},
        "processors": [processor.identity() for processor in processors],
    }


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Hash an identity."""
    return hash_of(msgspec.json.encode(identity, order="deterministic", enc_hook=str))


def with_code_of(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity with the code of the functions that columns of another one call, where all else is equal.

    A run that retries what failed calls a mended function: its finished cells stay those of the code before.
    """
    columns = {name: _with_code(column, wanted["columns"].get(name)) for name, column in there["columns"].items()}
    return {**there, "columns": columns}


def _with_code(there: object, wanted: object) -> object:
    if not (isinstance(there, dict) and isinstance(wanted, dict) and "code" in there and "code" in wanted):
        return there
    return {**there, "code": wanted["code"]}


def differences(there: object, wanted: object, path: str = "") -> Iterator[str]:
    """Yield the differences between two identities in words: `columns.answer.prompt is 'b', and was 'a'`."""
    if isinstance(there, dict) and isinstance(wanted, dict):
        for key in dict.fromkeys([*there, *wanted]):
            below = f"{path}.{key}".strip(".")
            if key not in wanted:
                yield f"{below} is gone"
            elif key not in there:
                yield f"{below} is new"
            else:
                yield from differences(there[key], wanted[key], below)
    elif there != wanted:
        changed = f"is {wanted!r:.60}, and was {there!r:.60}"
        yield f"{path} {'has changed' if path.rpartition('.')[2] in _HASHES else changed}"


def _model(plain: str | Mapping[str, Any], model: Model) -> dict[str, Any]:
    fields = {"spec": plain} if isinstance(plain, str) else plain
    decisive = {name: value for name, value in fields.items() if name not in _HOW_TO_CALL}
    return decisive if isinstance(model.spec, str) else {**decisive, **code_of(model.spec)}
