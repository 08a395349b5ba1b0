"""Identity: what of a recipe decides its table, as plain data, and how two of them differ."""

from __future__ import annotations

import hashlib
import inspect
from typing import TYPE_CHECKING, Any

import msgspec

from ..columns.functions import Function
from ..columns.seeds import Seed
from ..columns.validation import Validate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..columns.column import ColumnSpec
    from ..models.model import Model
    from ..processors.processor import Processor

_HOW_TO_CALL = frozenset(
    {"base_url", "api_key_env", "max_parallel", "requests_per_minute", "tokens_per_minute", "timeout", "price"}
)
"""Fields of a model that say where and how fast it is asked, and for how much, not what."""

_HASHES = frozenset({"code", "data"})


def identity_of(
    description: Mapping[str, Any],
    models: Mapping[str, Model],
    columns: Sequence[ColumnSpec | Seed],
    processors: Sequence[Processor],
) -> dict[str, Any]:
    """Give what decides a recipe's table: its description, the code of functions and the data of seeds.

    What says only where a model is and how it is asked is left out.
    """
    described = zip(description["columns"], columns, strict=True)
    plain = dict(_named(dict(plain), column) for plain, column in described)
    return {
        "seed": description.get("seed"),
        "models": {alias: _model(description["models"][alias], model) for alias, model in models.items()},
        "columns": {**plain, "order": list(plain)},
        "processors": [
            {**plain, **_code(getattr(processor, "function", processor))}
            for plain, processor in zip(description.get("processors", ()), processors, strict=True)
        ],
    }


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Hash an identity."""
    return _hash(msgspec.json.encode(identity, order="deterministic", enc_hook=str))


def differences(there: object, wanted: object, path: str = "") -> Iterator[str]:
    """Say in words where two identities differ: `columns.answer.prompt is 'b', and was 'a'`."""
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


def _named(plain: dict[str, Any], column: ColumnSpec | Seed) -> tuple[str, dict[str, Any]]:
    """Give a column's name, and what decides its values."""
    if isinstance(column, Seed):
        names = ", ".join(one.name for one in column.expand())
        return f"seed of {names}", {**plain, "data": column.digest}
    if isinstance(column, Function):
        return str(plain.pop("name")), {**plain, **_code(column.function)}
    if isinstance(column, Validate):
        decisive = _decisive(plain)
        return str(decisive.pop("name")), {**decisive, **_code(column.check)}
    plain.pop("batch_size", None)  # how an embedding is asked for, not what it is
    return str(plain.pop("name")), plain


def _model(plain: str | Mapping[str, Any], model: Model) -> dict[str, Any]:
    decisive = _decisive({"spec": plain} if isinstance(plain, str) else plain)
    return decisive if isinstance(model.spec, str) else {**decisive, **_code(model.spec)}


def _decisive(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in _HOW_TO_CALL}


def _code(thing: object) -> dict[str, str]:
    """Hash the source of a function, or of an object's class; nothing for what is built in, or has no source."""
    code: Any = thing if inspect.isroutine(thing) else type(thing)
    if (code.__module__ or "").partition(".")[0] == __name__.partition(".")[0]:
        return {}
    try:
        return {"code": _hash(inspect.getsource(inspect.unwrap(code)).encode())}
    except (OSError, TypeError):  # typed into an interpreter, or not written in Python
        return {}


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
