"""What was learned, kept in the cache as one file of tensors, and a folder for work under way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from qdx.exporter.errors import StorageError
from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile

if TYPE_CHECKING:
    import torch

    from qdx.cache.store import Store
    from qdx.exporter.progress import Progress

__all__ = ["KeptTensors"]


@dataclass(frozen=True)
class KeptTensors:
    """Entries of one kind.

    Attributes:
        kind: Theirs, in the store.
        name: What is learned so, in messages and names of folders.
        file: Of an entry.
        store: Keeps them; None keeps nothing.
        fresh: Find nothing, whatever is kept.
        progress: Told where nothing can be kept.
    """

    kind: str
    name: str
    file: str
    store: Store | None
    fresh: bool
    progress: Progress

    def find(self, key: str) -> dict[str, torch.Tensor] | None:
        """Tensors by name; None where there are none."""
        if self.store is None or self.fresh:
            return None
        folder = self.store.find(self.kind, key)
        if folder is None:
            return None
        try:
            file = SafetensorsFile(folder / self.file)
            try:
                return {_meant(name): file.read(name) for name in file.tensors}
            finally:
                file.close()
        finally:
            self.store.release(self.kind, key)

    def keep(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keeps tensors."""
        if self.store is None:
            return
        from safetensors.torch import save

        # Files of tensors hold no memory twice.
        data = save({_stored(name): one.clone().contiguous() for name, one in tensors.items()})
        with self.store.adding(self.kind, key) as folder:
            (folder / self.file).write_bytes(data)

    def forget(self, key: str) -> None:
        """Removes the folder of a work that is done."""
        if self.store is None:
            return
        try:
            self.store.remove_working(self.kind, key)
        except StorageError as bad:  # nothing is lost but room
            self.progress.say(f"{self.name}: {bad.message}")

    @contextmanager
    def place(self, key: str) -> Iterator[Path]:
        """A folder for what an interrupted work goes on from."""
        with ExitStack() as stack:
            place = None
            if self.store is not None:
                try:
                    if self.fresh:
                        self.store.remove_working(self.kind, key)
                    place = stack.enter_context(self.store.working(self.kind, key))
                except StorageError as full:
                    self.progress.say(f"{self.name}: continues without the cache: {full.message}")
            if place is None:
                place = Path(stack.enter_context(TemporaryDirectory(prefix=f"qdx-{self.name}-")))
            yield place


def _stored(name: str) -> str:
    return name.replace("#", "+")  # files of tensors have no `#`, and no module's name has a `+`


def _meant(name: str) -> str:
    return name.replace("+", "#")
