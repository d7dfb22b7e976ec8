"""Tensors on disk, each distinct one once, read one at a time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Final

from qdx.exporter.errors import InvalidModel, StorageError, quoted
from qdx.exporter.files import safe_child
from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile

if TYPE_CHECKING:
    import torch

__all__ = ["StoredTensors", "TensorFolder", "rank_of"]

_NAME: Final = "tensor"
_PAIRS: Final = "pairs"
"""Complex numbers as pairs of real ones, in a last dimension of two: our reader knows no others."""


class TensorFolder:
    """A folder of safetensors files with one tensor each, named by the SHA-256 of their bytes.

    Args:
        path: The folder, which exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._uses: Counter[str] = Counter()

    def store(self, tensors: Mapping[str, torch.Tensor]) -> StoredTensors:
        """Writes tensors that are not there yet.

        Raises:
            StorageError: The disk refused.
        """
        return StoredTensors(self, {name: self._add(one) for name, one in tensors.items()})

    def drop(self, tensors: StoredTensors) -> None:
        """Removes what `store` gave, as far as nothing else that was stored is the same.

        Raises:
            StorageError: The disk refused.
        """
        for digest in tensors.digests.values():
            self._uses[digest] -= 1
            if self._uses[digest] > 0:
                continue
            path = self._path(digest)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise StorageError(
                    f"{quoted(path)}: cannot be removed, {error.strerror}"
                ) from error

    def read(self, digest: str) -> torch.Tensor:
        """One tensor in new memory.

        Raises:
            InvalidModel: The file is malformed.
            StorageError: It cannot be read.
        """
        import torch

        file = self._open(digest)
        try:
            (name,) = file.tensors
            found = file.read(name)
        finally:
            file.close()
        return torch.view_as_complex(found) if name == _PAIRS else found

    def rank(self, digest: str) -> int:
        """The number of dimensions of a tensor, from the file's header alone.

        Raises:
            InvalidModel: The file is malformed.
            StorageError: It cannot be read.
        """
        file = self._open(digest)
        file.close()
        ((name, stored),) = file.tensors.items()
        return len(stored.shape) - (name == _PAIRS)

    def _add(self, tensor: torch.Tensor) -> str:
        import torch
        from safetensors.torch import save

        name, values = _NAME, tensor.detach().cpu()
        if tensor.is_complex():
            name, values = _PAIRS, torch.view_as_real(values.resolve_conj())
        data = save({name: values.contiguous()})
        digest = hashlib.sha256(data).hexdigest()
        self._uses[digest] += 1
        path = self._path(digest)
        if self._uses[digest] > 1 or path.exists():
            return digest
        try:
            path.write_bytes(data)
        except OSError as error:
            raise StorageError(
                f"{quoted(path)}: cannot be written, {error.strerror or error}",
                hint="calls of the reference are kept on disk; TMPDIR names a folder with room",
            ) from error
        return digest

    def _open(self, digest: str) -> SafetensorsFile:
        file = SafetensorsFile(safe_child(self.path, f"{digest}.safetensors"))
        if list(file.tensors) not in ([_NAME], [_PAIRS]):
            file.close()
            raise InvalidModel(f"{quoted(file.path)}: holds {len(file.tensors)} tensors, expected "
                               f"one called {quoted(_NAME)}")  # fmt: skip
        return file

    def _path(self, digest: str) -> Path:
        return self.path / f"{digest}.safetensors"


class StoredTensors(Mapping[str, "torch.Tensor"]):
    """Tensors by name in the folder that holds them; each access reads the file again.

    Args:
        folder: Where they are.
        digests: Their files, by name.
    """

    def __init__(self, folder: TensorFolder, digests: Mapping[str, str]) -> None:
        self._folder = folder
        self.digests = dict(digests)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._folder.read(self.digests[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.digests)

    def __len__(self) -> int:
        return len(self.digests)

    def __contains__(self, name: object) -> bool:
        return name in self.digests

    def only(self, names: AbstractSet[str]) -> StoredTensors:
        """Those of these names."""
        kept = {name: digest for name, digest in self.digests.items() if name in names}
        return StoredTensors(self._folder, kept)

    def rank(self, name: str) -> int:
        """The number of dimensions; the values are not read."""
        return self._folder.rank(self.digests[name])


def rank_of(tensors: Mapping[str, torch.Tensor], name: str) -> int:
    """The number of dimensions of one of several tensors; of stored ones the values are not read."""
    return tensors.rank(name) if isinstance(tensors, StoredTensors) else tensors[name].dim()
