"""Reading safetensors weights, one tensor at a time, from files of strangers."""

from __future__ import annotations

import mmap
import os
import struct
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from qdx.exporter.errors import InternalError, InvalidModel, StorageError, quoted
from qdx.exporter.files import load_json, open_regular, parse_json, safe_child
from qdx.exporter.graph.ir.safetensors_header import StoredTensor, tensors_from_header
from qdx.exporter.graph.ir.weight_files import find_weights
from qdx.exporter.limits import SAFETENSORS_HEADER_LIMIT_BYTES

if TYPE_CHECKING:
    import torch

__all__ = [
    "Checkpoint",
    "JoinedCheckpoint",
    "SafetensorsFile",
    "StoredTensor",
    "check_finite",
    "open_checkpoint",
]

_LENGTH_BYTES: Final = 8
# Linux reads at most 2 GiB at once.
_READ_LIMIT_BYTES: Final = 1 << 30
_CHECKED_ELEMENTS: Final = 1 << 22


class SafetensorsFile:
    """One `.safetensors` file with a checked header.

    The file stays open: tensors are read from the descriptor whose header was checked.

    Args:
        path: The file, not a link.
        in_model: Whether it is a file of a model's folder, see `open_regular`.

    Attributes:
        tensors: Where each tensor lies, by name.
        metadata: Texts that the file holds beside its tensors.

    Raises:
        InvalidModel: If the file is malformed; the message names the file and the tensor.
        StorageError: If reading fails.
    """

    def __init__(self, path: Path | str, *, in_model: bool = False) -> None:
        self.path = Path(path)
        with open_regular(path, in_model=in_model) as file:
            self._descriptor = os.dup(file.fileno())
        self._closer = weakref.finalize(self, os.close, self._descriptor)
        self._pages: mmap.mmap | None = None
        try:
            self.tensors: Mapping[str, StoredTensor] = MappingProxyType(self._read_header())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the file; further reads are an error."""
        self._closer()

    def read(self, name: str) -> torch.Tensor:
        """Reads one tensor into new memory, in its stored dtype.

        Raises:
            KeyError: If there is no such tensor.
            InvalidModel: If the file became shorter.
            StorageError: If reading fails.
        """
        import torch

        stored = self.tensors[name]
        if not self._closer.alive:
            raise InternalError(f"{quoted(self.path)}: read after close")
        data = torch.empty(stored.size_bytes, dtype=torch.uint8)
        self._fill(data.numpy().data, stored.offset_bytes, name)
        dtype: torch.dtype = getattr(torch, stored.dtype)
        return data.view(dtype).reshape(stored.shape)

    def mapped(self, name: str) -> torch.Tensor:
        """One tensor as pages of the file, in its stored dtype.

        Pages are read when they are touched, and the system takes them back when it needs memory. Writing to
        the tensor changes private copies of its pages, never the file. Nobody may shorten the file while such
        a tensor is in use. Data that does not start at a multiple of its element size is read into memory.

        Raises:
            KeyError: If there is no such tensor.
            InvalidModel: If the file became shorter.
            StorageError: If the file cannot be mapped or read.
        """
        import torch

        stored = self.tensors[name]
        dtype: torch.dtype = getattr(torch, stored.dtype)
        if not stored.size_bytes or stored.offset_bytes % dtype.itemsize:
            return self.read(name)
        pages = self._mapping()
        if len(pages) < stored.offset_bytes + stored.size_bytes:
            raise self._invalid(f"{quoted(name)} ends early, the file became shorter")
        count = stored.size_bytes // dtype.itemsize
        flat = torch.frombuffer(pages, dtype=dtype, count=count, offset=stored.offset_bytes)
        return flat.reshape(stored.shape)

    def _mapping(self) -> mmap.mmap:
        """The whole file, mapped once for all of its tensors; it lives as long as one of them."""
        if not self._closer.alive:
            raise InternalError(f"{quoted(self.path)}: mapped after close")
        if self._pages is None:
            try:
                self._pages = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_COPY)
            except (OSError, ValueError) as bad:
                raise StorageError(f"{quoted(self.path)}: cannot be mapped, {bad}") from bad
        return self._pages

    def _read_header(self) -> dict[str, StoredTensor]:
        size_bytes = os.fstat(self._descriptor).st_size
        if size_bytes < _LENGTH_BYTES:
            raise self._invalid(f"{size_bytes} bytes, expected at least {_LENGTH_BYTES}")
        prefix = bytearray(_LENGTH_BYTES)
        self._fill(memoryview(prefix), 0, "header")
        (length,) = struct.unpack("<Q", prefix)
        limit = min(SAFETENSORS_HEADER_LIMIT_BYTES, size_bytes - _LENGTH_BYTES)
        if not 2 <= length <= limit:
            raise self._invalid(f"header of {length} bytes, expected 2 to {limit}")
        raw = bytearray(length)
        self._fill(memoryview(raw), _LENGTH_BYTES, "header")
        start = _LENGTH_BYTES + length
        header = self._parse(raw)
        metadata = header.get("__metadata__", {})
        tensors = tensors_from_header(header, start, size_bytes, self.path)
        self.metadata: Mapping[str, str] = MappingProxyType(metadata)
        return tensors

    def _parse(self, raw: bytearray) -> dict[str, Any]:
        # Leading space would let the same bytes be another format.
        if not raw.startswith(b"{"):
            raise self._invalid("header does not start with `{`")
        try:
            text = raw.decode("utf-8", "strict")
        except UnicodeDecodeError as bad:
            raise self._invalid(f"header byte {bad.start} is not UTF-8") from None
        return parse_json(text, source=f"{self.path}:header")

    def _fill(self, target: memoryview, offset_bytes: int, what: str) -> None:
        done = 0
        while done < len(target):
            part = target[done : done + _READ_LIMIT_BYTES]
            try:
                count = os.preadv(self._descriptor, [part], offset_bytes + done)
            except OSError as bad:
                message = f"{quoted(self.path)}: {quoted(what)} cannot be read, {bad.strerror}"
                raise StorageError(message) from bad
            if count == 0:
                raise self._invalid(f"{quoted(what)} ends early, the file became shorter")
            done += count

    def _invalid(self, reason: str) -> InvalidModel:
        return InvalidModel(f"{quoted(self.path)}: {reason}")


class Checkpoint(Mapping[str, StoredTensor]):
    """All tensors of a component by name, whichever file they lie in.

    Args:
        shards: The weight files, opened.
        files: The files read, in order: the index, if there is one, then the weights.
        mapped: Whether tensors are pages of the files (see `SafetensorsFile.mapped`) and no copies.

    Attributes:
        files: As given.
    """

    def __init__(
        self, shards: Sequence[SafetensorsFile], files: Sequence[Path], *, mapped: bool = False
    ) -> None:
        self.files = list(files)
        self._mapped = mapped
        self._owner: dict[str, SafetensorsFile] = {}
        for shard in shards:
            for name in shard.tensors:
                if name in self._owner:
                    message = f"{quoted(shard.path)}: tensor {quoted(name)} is also in"
                    raise InvalidModel(f"{message} {quoted(self._owner[name].path)}")
                self._owner[name] = shard

    @property
    def shards(self) -> tuple[SafetensorsFile, ...]:
        """The weight files."""
        return tuple(dict.fromkeys(self._owner.values()))

    def __getitem__(self, name: str) -> StoredTensor:
        return self._owner[name].tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._owner)

    def __len__(self) -> int:
        return len(self._owner)

    def read(self, name: str) -> torch.Tensor:
        """Reads one tensor, or maps it; see `SafetensorsFile`."""
        owner = self._owner[name]
        return owner.mapped(name) if self._mapped else owner.read(name)

    def file_of(self, name: str) -> Path:
        """Returns the weight file that holds a tensor."""
        return self._owner[name].path


class JoinedCheckpoint(Checkpoint):
    """The tensors of several checkpoints, each under a prefix.

    Args:
        parts: The checkpoints by prefix.
    """

    def __init__(self, parts: Mapping[str, Checkpoint]) -> None:
        super().__init__([], [file for part in parts.values() for file in part.files])
        self._parts = {
            f"{prefix}{name}": (part, name) for prefix, part in parts.items() for name in part
        }

    def __getitem__(self, name: str) -> StoredTensor:
        part, own = self._parts[name]
        return part[own]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def read(self, name: str) -> torch.Tensor:
        """Reads one tensor, as its checkpoint does."""
        part, own = self._parts[name]
        return part.read(own)

    def file_of(self, name: str) -> Path:
        """Returns the weight file that holds a tensor."""
        part, own = self._parts[name]
        return part.file_of(own)


def open_checkpoint(
    folder: Path | str, *, variant: str | None = None, mapped: bool = False
) -> Checkpoint:
    """Opens the weights of one component.

    Args:
        folder: The component folder, for example `MODEL/unet`.
        variant: See `find_weights`.
        mapped: Whether tensors are pages of the files (see `SafetensorsFile.mapped`) and no copies.

    Raises:
        InvalidModel: As `find_weights`, or if index and shards disagree.
        StorageError: If reading fails.
    """
    found = find_weights(Path(folder), variant)
    path = safe_child(folder, found.name, in_model=True)
    if found.is_index:
        return _open_sharded(Path(folder), path, mapped=mapped)
    return Checkpoint([SafetensorsFile(path, in_model=True)], [path], mapped=mapped)


def _open_sharded(folder: Path, index: Path, *, mapped: bool) -> Checkpoint:
    where = quoted(index)
    weight_map = load_json(index, in_model=True).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InvalidModel(f"{where}: `weight_map` is missing or empty, expected tensors and files")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or "/" in shard or not shard.endswith(".safetensors"):
            message = f"{where}: tensor {quoted(name)} lies in {quoted(shard)}"
            raise InvalidModel(f"{message}, expected a `.safetensors` file beside the index")
    names = sorted(set(weight_map.values()))
    paths = [safe_child(folder, shard, in_model=True) for shard in names]
    shards = [SafetensorsFile(path, in_model=True) for path in paths]
    checkpoint = Checkpoint(shards, [index, *paths], mapped=mapped)
    for name, shard in weight_map.items():
        if name not in checkpoint or checkpoint.file_of(name).name != shard:
            raise InvalidModel(f"{where}: tensor {quoted(name)} is not in {quoted(shard)}")
    for name in checkpoint:
        if name not in weight_map:
            where_read = quoted(checkpoint.file_of(name))
            raise InvalidModel(f"{where_read}: tensor {quoted(name)} is not listed in {where}")
    return checkpoint


def check_finite(tensor: torch.Tensor, name: str, file: Path | str) -> None:
    """Refuses weights with NaN or infinity, which would spread silently through a network.

    Args:
        tensor: Any shape and dtype; integers always pass.
        name: Of the tensor, for the message.
        file: Where it was read, for the message.

    Raises:
        InvalidModel: Naming the tensor and how many of its values are not finite.
    """
    import torch

    if not tensor.is_floating_point():
        return
    bad = 0
    for part in torch.split(tensor.reshape(-1), _CHECKED_ELEMENTS):  # in parts: masks take memory
        values = part.float() if part.element_size() == 1 else part
        if values.numel() and not bool(torch.isfinite(torch.stack(torch.aminmax(values))).all()):
            bad += int((~torch.isfinite(values)).sum())  # slow: extremes tell of sound ones
    if bad:
        message = f"{quoted(file)}: tensor {quoted(name)}: {bad} of {tensor.numel()} values"
        raise InvalidModel(f"{message} are NaN or infinite, expected finite weights")
