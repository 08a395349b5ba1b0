"""Condition: a boolean DuckDB expression over the columns of a row, checked to be nothing else.

It cannot reach files, the network or other tables: the parsed expression is checked before use, and the connection that
evaluates it has no external access and is locked.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import duckdb
    import pyarrow as pa

_TABLE = "__rows__"
_BEFORE = "SELECT (\n"
_QUERY = _BEFORE + "{}\n) FROM " + _TABLE  # the line break ends a comment at the end of the expression
_CONFIG = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",  # or Python variables could be read as tables
    "threads": "1",
    "lock_configuration": "true",
}
_REFUSED = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "a star",
    "PARAMETER": "a parameter",
    "POSITIONAL_REFERENCE": "a column by its position",
}
_OF_LISTS = ("list_", "array_", "filter", "apply", "reduce")
_WHAT = "it is one expression over the columns of a row"
_SHOWN = 30
_KIND = re.compile(r"^[A-Z][A-Za-z ]* Error: ")
_OF_NO_ROW = """
    SELECT function_name FROM duckdb_functions() WHERE list_contains(?, function_name)
    GROUP BY function_name HAVING NOT bool_or(function_type IN ('scalar', 'macro'))
"""


class SqlError(Exception):
    """The expression cannot be evaluated for a row."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A checked expression, and the columns it needs."""

    sql: str
    needs: tuple[str, ...]

    @staticmethod
    @functools.cache
    def parse(sql: str) -> Condition:
        """Check an expression; raises ValueError with what is wrong, and where."""
        connection = _connect()
        try:
            nodes = list(_nodes(_tree(connection, sql)))
            for node in nodes:
                if node["class"] in _REFUSED:
                    raise ValueError(f"sql has {_REFUSED[node['class']]}{_at(sql, node)}; {_WHAT}")
            needs = tuple(dict.fromkeys(node["column_names"][0] for node in nodes if node["class"] == "COLUMN_REF"))
            _check_names(needs)
            _check_functions(connection, sql, nodes)
            _check_bound(connection, sql, needs)
            return Condition(sql, needs)
        finally:
            connection.close()

    def selector(self) -> Callable[[Sequence[Sequence[object]]], list[bool | SqlError | None]]:
        """Return the function from the needs of many rows to the expression's value for each row."""
        import duckdb  # noqa: PLC0415 - an extra
        import pyarrow as pa  # noqa: PLC0415 - not at import time

        connection, query = _connect(), _QUERY.format(self.sql)
        misfits = (duckdb.Error, pa.ArrowException, OverflowError, UnicodeError, SqlError)

        def select(rows: Sequence[Sequence[object]]) -> list[bool | SqlError | None]:
            try:
                return list(_selected(connection, query, _table(pa, self.needs, rows)))
            except misfits as error:
                if len(rows) == 1:
                    return [SqlError(_message(error))]
                return [found for row in rows for found in select([row])]  # to find the row that fails

        return select


def _connect() -> duckdb.DuckDBPyConnection:
    try:
        import duckdb  # noqa: PLC0415 - an extra, and only some recipes have SQL
    except ImportError:
        raise ValueError('sql needs the package duckdb: pip install "rowloop[sql]"') from None
    return duckdb.connect(":memory:", config=dict(_CONFIG))


def _tree(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    """Parse, and return the expression's tree; raises ValueError if there is anything beside the expression."""
    if not sql.strip():
        raise ValueError(f"sql is empty; {_WHAT}")
    parsed = _serialized(connection, sql)
    if parsed["error"]:
        if "position" in parsed:
            raise ValueError(f"sql is not an expression: {_near(sql, int(parsed['position']))}")
        raise ValueError(f"sql has more than an expression; {_WHAT}")
    (frame,) = _serialized(connection, "true")["statements"]
    nodes = [statement["node"] for statement in parsed["statements"]]
    if len(nodes) != 1 or _shape(nodes[0]) != _shape(frame["node"]) or len(nodes[0]["select_list"]) != 1:
        raise ValueError(f"sql has more than an expression; {_WHAT}")
    tree: dict[str, Any] = nodes[0]["select_list"][0]
    if tree["class"] == "FUNCTION" and tree["function_name"] == "row":
        raise ValueError(f"sql is not an expression, or more than one; {_WHAT}")
    return tree


def _serialized(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    ((text,),) = connection.execute("SELECT json_serialize_sql(?)", [_QUERY.format(sql)]).fetchall()
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def _shape(node: dict[str, Any]) -> dict[str, Any]:
    """Return a statement without its expression and without the positions of its parts."""
    table = node.get("from_table") or {}
    return {
        **{key: value for key, value in node.items() if key not in {"select_list", "from_table"}},
        "from_table": {key: value for key, value in table.items() if not key.startswith("query_location")},
    }


def _nodes(tree: object, bound: frozenset[str] = frozenset(), function: str = "") -> Iterator[dict[str, Any]]:
    """Yield all nodes of an expression except references to the parameters of its lambdas.

    `function` is the function whose argument the tree is: in a list function's argument an arrow makes a lambda,
    elsewhere it reads a JSON field.
    """
    if isinstance(tree, list):
        for part in tree:
            yield from _nodes(part, bound, function)
    elif isinstance(tree, dict):
        kind = tree.get("class")
        if kind == "LAMBDA" and function.startswith(_OF_LISTS):
            bound |= {name for node in _nodes(tree["lhs"]) for name in node.get("column_names", ())}
            yield from _nodes(tree["expr"], bound)
            return
        if kind is not None and not (kind == "COLUMN_REF" and tree["column_names"][0] in bound):
            yield tree
        for part in tree.values():
            yield from _nodes(part, bound, tree.get("function_name", function if kind is None else ""))


def _check_names(needs: Sequence[str]) -> None:
    """Refuse two columns whose names differ in case alone."""
    seen: dict[str, str] = {}
    for need in needs:
        other = seen.setdefault(need.lower(), need)
        if other != need:
            raise ValueError(f"sql needs the columns '{other}' and '{need}', which are the same to SQL")


def _check_functions(connection: duckdb.DuckDBPyConnection, sql: str, nodes: Sequence[dict[str, Any]]) -> None:
    """Refuse functions of anything but one row: an aggregate would make one row of many."""
    called = {node["function_name"]: node for node in nodes if node["class"] == "FUNCTION"}
    for (name,) in connection.execute(_OF_NO_ROW, [list(called)]).fetchall():
        raise ValueError(f"sql has {name}(){_at(sql, called[name])}, which is not a function of one row; {_WHAT}")


def _check_bound(connection: duckdb.DuckDBPyConnection, sql: str, needs: Sequence[str]) -> None:
    """Refuse an unknown function. Types cannot be checked yet: they come with the values."""
    import duckdb  # noqa: PLC0415 - an extra

    columns = ", ".join('"{}" VARCHAR'.format(need.replace('"', '""')) for need in needs or [_TABLE])
    connection.execute(f"CREATE TABLE {_TABLE} ({columns})")
    try:
        found = connection.execute(_QUERY.format(sql))
    except duckdb.CatalogException as error:
        raise ValueError(f"sql is not an expression: {_message(error)}") from None
    except duckdb.Error:
        return
    kind = _kind(found)
    found.fetchall()
    if not needs and kind != "BOOLEAN":
        raise ValueError(f"sql gives {kind}, not BOOLEAN; compare it with something")


def _table(pyarrow: Any, needs: Sequence[str], rows: Sequence[Sequence[object]]) -> pa.Table:
    """Make a table of rows; it has a column even if no column is needed."""
    columns = {need: pyarrow.array([row[i] for row in rows]) for i, need in enumerate(needs)}
    table: pa.Table = pyarrow.table(columns or {_TABLE: pyarrow.nulls(len(rows))})
    return table


def _selected(connection: duckdb.DuckDBPyConnection, query: str, table: pa.Table) -> Iterator[bool | None]:
    connection.register(_TABLE, table)
    try:
        found = connection.execute(query)
        kind = _kind(found)
        for (value,) in found.fetchall():
            if value is not None and not isinstance(value, bool):
                raise SqlError(f"the expression gives {kind}, not BOOLEAN; compare it with something")
            yield value
    finally:
        connection.unregister(_TABLE)


def _kind(found: duckdb.DuckDBPyConnection) -> str:
    """Return the name of the type of a query's result."""
    return str(found.description[0][1])


def _message(error: Exception) -> str:
    """Return DuckDB's message without the query around it."""
    return " ".join(_KIND.sub("", str(error).split("\n\nLINE ")[0]).split())


def _near(sql: str, position: int) -> str:
    at = _character(sql, position)
    if at >= len(sql):
        return "it ends where something is missing, or has a bracket too many"
    return f"syntax error at character {at + 1}, near {sql[at : at + _SHOWN]!r}"


def _at(sql: str, node: dict[str, Any]) -> str:
    at = _character(sql, int(node["query_location"]))
    return f" at character {at + 1}" if at < len(sql) else ""


def _character(sql: str, position: int) -> int:
    """Turn a position in the query, in bytes, into one in the expression, in characters."""
    return len(sql.encode()[: max(0, position - len(_BEFORE))].decode(errors="ignore"))
