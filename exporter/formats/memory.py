"""Numbers that took long to choose, asked for again: scales and tables by the values they were chosen for.

Who runs the exporter may lend it a memory. It changes no number: what is remembered was computed by the
same code, with the same library on the same kind of processor, from the same values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Final, Protocol

import torch
from pydantic import JsonValue

from qdx.exporter.files import sha256_file
from qdx.exporter.formats.quantization import WeightQuantization

__all__ = ["Memory", "remembered", "remembering"]

_Tensors = Mapping[str, torch.Tensor]
_PIECE_ELEMENTS: Final = 1 << 20


class Memory(Protocol):
    """Where chosen numbers are kept."""

    def recall(self, parts: Mapping[str, JsonValue]) -> _Tensors | None:
        """Returns what was kept under the same parts, bit by bit; None if there is nothing."""

    def keep(self, parts: Mapping[str, JsonValue], tensors: _Tensors) -> None:
        """Keeps small tensors."""


_memory: ContextVar[Memory | None] = ContextVar("memory", default=None)


@contextmanager
def remembering(memory: Memory | None) -> Iterator[None]:
    """Lends a memory while the context lasts; None lends none."""
    token = _memory.set(memory)
    try:
        yield
    finally:
        _memory.reset(token)


def remembered(
    what: str,
    rows: torch.Tensor,
    quantization: WeightQuantization,
    choose: Callable[[], _Tensors],
) -> _Tensors:
    """Returns numbers chosen for a weight: those remembered, or else those that `choose` returns.

    Args:
        what: Which numbers.
        rows: The weight in two dimensions, any float dtype; read once to find out what it holds.
        quantization: What they are for.
        choose: Computes them from `rows` and `quantization` alone.
    """
    memory = _memory.get()
    if memory is None:
        return choose()
    parts: dict[str, JsonValue] = {
        "what": what,
        "values": _digest(rows),
        "quantization": asdict(quantization),
        "code": _code_digest(),
        **_arithmetic(),
    }
    found = memory.recall(parts)
    if found is None:
        found = choose()
        memory.keep(parts, found)
    return found


def _digest(rows: torch.Tensor) -> str:
    """SHA-256 of the values with their dtype and shape, one row-contiguous piece in memory at a time."""
    digest = hashlib.sha256(f"{rows.dtype} {list(rows.shape)}\n".encode("ascii"))
    if rows.numel():
        height = max(1, _PIECE_ELEMENTS // rows.shape[1])
        for start in range(0, len(rows), height):
            piece = rows[start : start + height].contiguous()
            digest.update(piece.view(torch.uint8).numpy().data)
    return digest.hexdigest()


@cache
def _code_digest() -> str:
    """Stands for the code that chooses: all of this package, and the table of number types."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in [folder.parent / "dtypes.py", *sorted(folder.glob("*.py"))]:
        digest.update(f"{path.name} {sha256_file(path, allow_hard_links=True)}\n".encode("ascii"))
    return digest.hexdigest()


def _arithmetic() -> dict[str, JsonValue]:
    """What may change the last bit of a sum."""
    return {
        "torch": torch.__version__,
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
