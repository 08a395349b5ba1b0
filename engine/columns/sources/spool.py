"""A spool: batches that are written once and read by number, in memory while they are few and then on the disk."""

from __future__ import annotations

import tempfile
import threading
import weakref
from typing import Literal

import pyarrow as pa

from ...core.errors import DatasetGenerationError
from .blocks import IN_MEMORY_BYTES


class Spool:
    """Batches in a temporary file that has no name, so that it is gone with its process, however that ends.

    Each batch has a schema of its own. The file is in the directory that TMPDIR names, compressed with lz4.
    """

    def __init__(self) -> None:
        """Open the file once it is needed."""
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115 - it lives as long as this
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()
        self._places: list[tuple[int, int]] = []
        self._end = 0
        self.sizes: list[int] = []
        """How many rows each batch has."""

    def append(self, batch: pa.Table, rows: int | None = None) -> None:
        """Write a batch; say how many rows it has where it may have no columns."""
        written = to_bytes(batch, "lz4" if pa.Codec.is_available("lz4") else None)
        with self._lock:
            self._write(written)
            self._places.append((self._end, written.size))
            self._end += written.size
            self.sizes.append(batch.num_rows if rows is None else rows)

    def _write(self, written: pa.Buffer) -> None:
        try:
            self._file.seek(self._end)
            self._file.write(written)
        except OSError as error:
            problem = f"cannot write the temporary file in {tempfile.gettempdir()}: {error.strerror}; set TMPDIR"
            raise DatasetGenerationError(problem, stage="seed") from error

    def read(self, number: int) -> pa.Table:
        """Read a batch."""
        place, size = self._places[number]
        with self._lock:
            self._file.seek(place)
            written = self._file.read(size)
        return from_bytes(pa.py_buffer(written))


def to_bytes(table: pa.Table, compression: Literal["lz4"] | None = None) -> pa.Buffer:
    """Write a table into memory."""
    buffer = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(buffer, table.schema, options=options) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def from_bytes(written: pa.Buffer) -> pa.Table:
    """Read a table that was written into memory."""
    with pa.ipc.open_stream(written) as reader:
        return reader.read_all()
