"""Processors of whole frames, and how they are applied.

| file                | what it contains                                                                             |
|---------------------|----------------------------------------------------------------------------------------------|
| processor.py        | `Processor`, which every kind subclasses: its three phases, its needs, the columns it writes |
| drop_columns.py     | leaves columns out of the table                                                              |
| schema_transform.py | writes rows of another shape, by templates                                                   |
| before_batch.py     | the place of the before_batch processors in the graph                                        |
| applying.py         | processors at work, and the check of what they may change                                    |

To add a kind, write its class in one file and add one line to the table below. The line makes it known to recipe files
and to their JSON Schema. Another package lists its class under the entry points `rowloop.processors` instead.
"""

from __future__ import annotations

from ..core.registry import Registry
from ..core.spec import check_kind
from .processor import Processor


def _check(name: str, kind: type[Processor]) -> None:
    check_kind(kind, Processor, name)


processor_types: Registry[type[Processor]] = Registry("type of processor", "rowloop.processors", _check)
"""The kinds of processors that a recipe file can name."""

processor_types.register("drop_columns", f"{__name__}.drop_columns:DropColumns")
processor_types.register("schema_transform", f"{__name__}.schema_transform:SchemaTransform")
