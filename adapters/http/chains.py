"""Chains: an exception and those inside it, each known by the names of its classes.

Clients wrap each other's exceptions, and lose what went wrong. No client is imported to recognise its errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEEPEST = 20
_ALIKE = {"niquests": "requests", "curl_cffi": "requests", "aiobotocore": "botocore"}
"""Packages whose exceptions have the names and the meanings of another's."""

_names: WeakKeyDictionary[type[BaseException], frozenset[str]] = WeakKeyDictionary()


def names_of(error: BaseException) -> frozenset[str]:
    """Return the names of an exception's classes, bare and after their package: `InvalidURL`, `aiohttp.InvalidURL`."""
    kind = type(error)
    names = _names.get(kind)
    if names is None:
        packages = (f"{_package(cls)}.{cls.__name__}" for cls in kind.__mro__)
        names = _names[kind] = frozenset((*(cls.__name__ for cls in kind.__mro__), *packages))
    return names


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those inside it, from the outside in."""
    seen: set[int] = set()
    inner: BaseException | None = error
    while inner is not None and id(inner) not in seen and len(seen) < _DEEPEST:
        yield inner
        seen.add(id(inner))
        inner = _inside(inner)


def _inside(error: BaseException) -> BaseException | None:
    """Return the cause of an exception; httpx, requests, urllib and urllib3 keep it among the arguments instead."""
    if error.__cause__ is not None:
        return error.__cause__
    held = (*error.args, getattr(error, "reason", None))
    return next((part for part in reversed(held) if isinstance(part, BaseException)), None)


def _package(cls: type) -> str:
    package = cls.__module__.partition(".")[0]
    return _ALIKE.get(package, package)
