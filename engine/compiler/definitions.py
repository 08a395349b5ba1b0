"""The definitions of a recipe's columns: from the columns as written to what columns/definitions.py compares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ..columns.code_hash import hash_of
from ..columns.definitions import Definition
from ..columns.templates.canonical import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..columns.column import Column, ColumnSpec
    from ..columns.definitions import Kind
    from ..core.graph import Node

_NOT_OF_VALUES = frozenset({"name", "model", "on_error", "max_parallel", "batch_size", "reasoning", "images"})
"""Fields that do not decide a value: the name, what happens on failure, speed; or that are looked at by themselves."""


def definitions_of(columns: Sequence[ColumnSpec], nodes: Sequence[Node], models: Mapping[str, Any]) -> list[Definition]:
    """Return the definition of every column of the table, in order, as the nodes are.

    `models` has the identities of models by alias.
    """
    expanded = [(column, given) for given in columns for column in given.expand()]
    return [_definition(column, given, node, models) for (column, given), node in zip(expanded, nodes, strict=True)]


def _definition(column: Column, given: ColumnSpec, node: Node, models: Mapping[str, Any]) -> Definition:
    if column.beside is not None:
        return Definition(column.name, "beside", column.type, [column.beside])
    kind, inputs = _kind(node), list(node.needs)
    if kind == "root":
        identity = given.identity()
        return Definition(column.name, kind, _digest([identity, column.name]), [], steady="order" not in identity)
    templates = column.templates()
    numbered = any(template.draws for template in templates.values()) or (node.strategy == "whole" and kind == "free")
    sources = {template.source for template in templates.values()}
    fields = {
        name: canonical(value, inputs) if isinstance(value, str) and value in sources else value
        for name, value in column.identity().items()
        if name not in _NOT_OF_VALUES
    }
    images = [inputs.index(name) for name in getattr(column, "images", ()) if name in inputs]
    alias = column.model_alias
    model = None if alias is None else models.get(alias)
    local = _digest([fields, images, model, column.name if numbered else None])
    return Definition(column.name, kind, local, inputs, numbered, asks=alias is not None)


def _kind(node: Node) -> Kind:
    if node.lane is not None:
        return "whole" if node.strategy == "whole" else "paid"
    return "root" if node.strategy == "whole" and not node.needs else "free"


def _digest(plain: object) -> str:
    return hash_of(msgspec.json.encode(plain, order="deterministic", enc_hook=str))
