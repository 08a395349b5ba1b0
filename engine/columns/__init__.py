"""Every kind of column, and the work it becomes in a run.

| file             | what it contains                                                                            |
|------------------|---------------------------------------------------------------------------------------------|
| column.py        | what a kind of column says of itself; `Column`, the class that every kind subclasses        |
| work.py          | the shapes of work: on the spot, awaited, in a thread; by cell or whole                     |
| samplers.py      | values drawn at random: Category, Uniform                                                   |
| seeds.py         | columns of a table that exists already                                                      |
| expression.py    | a template over other columns                                                               |
| prompted.py      | what the columns that ask a model have in common: prompts, parameters, the call of one cell |
| text.py          | a model's answer, as text                                                                   |
| structured.py    | a model's answer that obeys a JSON Schema                                                   |
| reask.py         | the requests of one structured cell, including those that show the model its mistake        |
| reasoning.py     | columns of text beside another: the reasoning of an answer, the reason of a verdict         |
| embedding.py     | the vector that a model gives to a text                                                     |
| functions.py     | a Python function as a column                                                               |
| decorators.py    | `cell` and `batch`, which make a column of a function                                       |
| validation.py    | whether a row is valid: by a function, in SQL, or at a URL                                  |
| validators.py    | the protocol of remote validators, and their registry                                       |
| sql_condition.py | a boolean DuckDB expression, checked to be nothing else                                     |
| templates/       | Jinja templates: sandboxed, bounded, compiled once per recipe                               |
| images.py        | image cells as parts of a message                                                           |
| schemas.py       | JSON Schemas, and the reader that checks answers against them                               |
| schema_types.py  | the Arrow type of values that obey a JSON Schema, where there is one                        |
| storable.py      | which values of a cell the table can hold, checked as soon as a cell has one                |
| sizes.py         | how many bytes of memory a value takes, about                                               |
| json_repairs.py  | JSON found in an answer's prose, and repaired                                               |
| microbatch.py    | callers with one item each share calls of many: SQL in a thread, embeddings over HTTP       |
| code_hash.py     | whether a function or class is still the one that made a table                              |
| definitions.py   | what makes a column's values, so that two recipes can be compared                           |

To add a kind, write its class in one file and add one line to the table below. The line makes it known to recipe files
and to their JSON Schema. Another package lists its class under the entry points `rowloop.columns` instead; what such a
class needs is imported from here.
"""

from __future__ import annotations

from ..core.errors import CellError
from ..core.graph import Lane, Node, OnError
from ..core.registry import Registry
from ..core.spec import check_kind, spec
from ..models.provider import Message, Reply
from .column import ArrowType, Binding, Column, ColumnSpec
from .prompted import Prompted, check_length, lane_of
from .samplers import Sampler
from .templates.template import Template
from .work import Answer, Await, AwaitWhole, Fill, InThread, Render, Work

__all__ = [
    "Answer",
    "ArrowType",
    "Await",
    "AwaitWhole",
    "Binding",
    "CellError",
    "Column",
    "ColumnSpec",
    "Fill",
    "InThread",
    "Lane",
    "Message",
    "Node",
    "OnError",
    "Prompted",
    "Render",
    "Reply",
    "Sampler",
    "Template",
    "Work",
    "check_length",
    "column_types",
    "lane_of",
    "spec",
]


def _check(name: str, kind: type[ColumnSpec]) -> None:
    check_kind(kind, ColumnSpec, name)


column_types: Registry[type[ColumnSpec]] = Registry("type of column", "rowloop.columns", _check)
"""The kinds of columns that a recipe file can name."""

column_types.register("category", f"{__name__}.samplers:Category")
column_types.register("uniform", f"{__name__}.samplers:Uniform")
column_types.register("expression", f"{__name__}.expression:Expression")
column_types.register("text", f"{__name__}.text:Text")
column_types.register("structured", f"{__name__}.structured:Structured")
column_types.register("embedding", f"{__name__}.embedding:Embedding")
column_types.register("validate", f"{__name__}.validation:Validate")
column_types.register("seed", f"{__name__}.seeds:Seed")
