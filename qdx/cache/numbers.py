"""Small tensors in the store: scales and tables of weights, answers of graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from qdx.bundle.companions import write_file
from qdx.cache.keys import key_of
from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile

if TYPE_CHECKING:
    import torch
    from pydantic import JsonValue

    from qdx.cache.store import Store

__all__ = ["KIND", "StoredNumbers"]

KIND: Final = "weight-scales"
_FILE: Final = "numbers.safetensors"


class StoredNumbers:
    """A memory that outlives the process; see `qdx.exporter.formats.memory.Memory`.

    Args:
        store: Where it is.
        kind: Of its entries, each of which holds what was kept at once, such as the numbers of one weight.
    """

    def __init__(self, store: Store, kind: str = KIND) -> None:
        self._store = store
        self._kind = kind

    def recall(self, parts: Mapping[str, JsonValue]) -> dict[str, torch.Tensor] | None:
        """See `qdx.exporter.formats.memory.Memory`."""
        key = key_of(parts)
        folder = self._store.find(self._kind, key)
        if folder is None:
            return None
        try:
            file = SafetensorsFile(folder / _FILE)
            try:
                return {name: file.read(name) for name in file.tensors}
            finally:
                file.close()
        finally:
            self._store.release(self._kind, key)

    def keep(self, parts: Mapping[str, JsonValue], tensors: Mapping[str, torch.Tensor]) -> None:
        """See `qdx.exporter.formats.memory.Memory`."""
        from safetensors.torch import save

        data = save({name: tensor.contiguous() for name, tensor in tensors.items()})
        with self._store.adding(self._kind, key_of(parts)) as folder:
            write_file(folder / _FILE, data)
