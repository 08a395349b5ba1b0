"""YAML text: read as YAML 1.2's core schema has it, within bounds, and written so that it is read back the same.

PyYAML scans and parses; what its events mean is decided here. In the core schema `yes`, `1:30` and dates are text,
`010` is ten, and `1e3` is a float. A key that appears twice, a merge key (`<<`, which is not part of YAML 1.2) and a
tag for Python objects are refused. Aliases share what they repeat, and are counted as if they were written out.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final, NoReturn

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from .core.plain_data import DEEPEST, MOST_REPEATED

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

LONGEST: Final = 10_000_000
"""The most characters in a text."""

_TAG = "tag:yaml.org,2002:"
_STR = f"{_TAG}str"
_NOT_FINITE = {"inf": math.inf, "nan": math.nan}


def _integer(text: str) -> int:
    if len(text) > len(str(2**64)) and len(text.lstrip("+-0ox")) > len(str(2**64)):
        raise ValueError(f"the number {text[:20]}... has {len(text):,} digits; numbers have at most 64 bits")
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


def _float(text: str) -> float:
    special = _NOT_FINITE.get(text[-3:].lower())
    return float(text) if special is None else -special if text[0] == "-" else special


_SCALARS: Final[dict[str, tuple[re.Pattern[str], str, Callable[[str], Any]]]] = {
    f"{_TAG}null": (re.compile(r"(?:~|null|Null|NULL|)\Z"), "~nN", lambda _: None),
    f"{_TAG}bool": (re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), "tTfF", lambda text: text[0] in "tT"),
    f"{_TAG}int": (re.compile(r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)\Z"), "-+0123456789", _integer),
    f"{_TAG}float": (
        re.compile(
            r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z"
        ),
        "-+.0123456789",
        _float,
    ),
}
"""The core schema of YAML 1.2.2, section 10.3.2, in its order: tag, form, first characters, and value."""


def read_yaml(text: str) -> Any:
    """Read one document; raises yaml.YAMLError with `problem` and, where there is one, `problem_mark`."""
    if len(text) > LONGEST:
        raise ConstructorError(None, None, f"it has {len(text):,} characters; at most {LONGEST:,} are read")
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
    finally:
        loader.dispose()
    return None if node is None else _Values().of(node)[0]


def write_yaml(data: Mapping[str, Any]) -> str:
    """Write plain data; text that any version of YAML reads as another type is quoted."""
    return str(yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))


class _Loader(yaml.SafeLoader):
    """Composes nodes by the core schema, and no deeper than is safe for what walks the data."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way; filled below
    depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self.depth += 1
        if self.depth > DEEPEST:
            peek: Any = self.peek_event  # PyYAML's stubs leave it untyped
            _refuse(f"it is nested deeper than {DEEPEST} levels", peek())
        node: Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _tag, (_form, _first, _) in _SCALARS.items():
    _Loader.add_implicit_resolver(_tag, _form, ["", *_first])


class _Values:
    """Makes the value of each node once, and counts what aliases repeat."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[Any, int] | None] = {}
        self._written = 0

    def of(self, node: Node) -> tuple[Any, int]:
        """Return the value of a node, and its size when aliases are written out."""
        made = self._made.get(id(node), ...)
        if made is None:
            _refuse("an alias contains itself", node)
        if made is ...:
            self._made[id(node)] = None
            made = self._made[id(node)] = self._make(node)
        if made[1] - self._written > MOST_REPEATED:
            _refuse(f"aliases repeat more than {MOST_REPEATED:,} values", node)
        return made

    def _make(self, node: Node) -> tuple[Any, int]:
        own = 1 + (len(node.value) // 64 if isinstance(node, ScalarNode) else 0)
        self._written += own
        if isinstance(node, SequenceNode) and node.tag == f"{_TAG}seq":
            items = [self.of(item) for item in node.value]
            return [value for value, _ in items], own + sum(size for _, size in items)
        if isinstance(node, MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, own)
        if isinstance(node, ScalarNode):
            return _scalar(node), own
        return _unknown(node)

    def _mapping(self, node: MappingNode, size: int) -> tuple[dict[Hashable, Any], int]:
        data: dict[Hashable, Any] = {}
        lines: dict[Hashable, int] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            line = key_node.start_mark.line + 1
            if key in data:
                _refuse(f"the key {key!r:.80} appears twice in one mapping, first in line {lines[key]}", key_node)
            lines[key] = line
            data[key], more = self.of(value_node)
            size += 1 + more
        return data, size

    def _key(self, node: Node) -> Hashable:
        if not isinstance(node, ScalarNode):
            _refuse("a key is text or a number, not a list or a mapping", node)
        if node.value == "<<" and node.style is None:
            _refuse("merge keys (<<) are not part of YAML 1.2; write the fields out", node)
        key: Hashable = self.of(node)[0]
        return key


def _scalar(node: ScalarNode) -> Any:
    if node.tag == _STR:
        return node.value
    form, _, value_of = _SCALARS.get(node.tag) or _unknown(node)
    if not form.match(node.value):
        _refuse(f"{node.value!r:.80} does not have the type of its tag", node)
    try:
        return value_of(node.value)
    except ValueError as error:
        return _refuse(str(error), node)


def _unknown(node: Node) -> NoReturn:
    _refuse(f"could not determine a constructor for the tag {node.tag!r:.80}", node)


def _refuse(problem: str, at: Any) -> NoReturn:
    """Raise an error at a node or an event."""
    raise ConstructorError(None, None, problem, at.start_mark)


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.2 takes for another type (PyYAML quotes what 1.1 does), and text with U+0085.

    In other styles PyYAML reads U+0085 back as another line break.
    """

    def represent_str(self, data: str) -> ScalarNode:
        quoted = "\x85" in data or any(form.match(data) for form, _, _ in _SCALARS.values())
        return self.represent_scalar(_STR, data, style='"' if quoted else None)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML calls it
        """Write what appears twice out twice."""
        return True


_Dumper.add_representer(str, _Dumper.represent_str)
