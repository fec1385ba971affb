"""How a process that reads sources uses Arrow: its memory pool, and no pandas."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.machinery import ModuleSpec
from types import ModuleType

import pyarrow as pa

KEPT_FREE_MS = 100
"""How long the pool keeps freed memory for the next batch; its default is a second."""


def settle() -> None:
    """Take the memory pool that gives memory back, and keep pandas out.

    Called when the stage is imported. pyarrow imports pandas with the first list or number that it is
    handed, to see whether it is one of pandas': 50 MB and a third of a second, for nothing here. It
    looks once. Told then that there is no pandas, it imports it all the same for ``to_pandas``.
    """
    # The default pool keeps what threads have freed: a large CSV file takes a third more memory.
    with suppress(NotImplementedError):  # not on every platform
        pa.set_memory_pool(pa.jemalloc_memory_pool())
        pa.jemalloc_set_decay_ms(KEPT_FREE_MS)
    if "pandas" in sys.modules:
        return
    hidden = _Hidden()
    sys.meta_path.insert(0, hidden)
    try:
        pa.scalar(0)
    finally:
        sys.meta_path.remove(hidden)


class _Hidden:
    """A finder that says that there is no pandas."""

    def find_spec(
        self,
        name: str,
        _path: Sequence[str] | None = None,
        _target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if name == "pandas":
            raise ModuleNotFoundError(name)
        return None


def whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array; one that is in one piece already is not copied."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
