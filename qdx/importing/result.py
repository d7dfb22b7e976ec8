"""What a reader of results is: files whose weights another tool has quantized, taken apart into integers, scales and tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from qdx.exporter.formats.given import GivenWeight
from qdx.exporter.formats.quantization import WeightQuantization
from qdx.exporter.plan.importers import Finding, Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from qdx.exporter.graph.ir.safetensors_file import Checkpoint

__all__ = ["Found", "ResultReader", "StoredResult", "by_block", "by_channel", "by_tensor"]


@dataclass(frozen=True)
class StoredResult:
    """The files of one component.

    Attributes:
        path: The folder or the file that was named.
        tensors: Its tensors.
        metadata: Texts beside them, of all files.
        config: `config.json` beside them; empty without one.
    """

    path: Path
    tensors: Checkpoint
    metadata: Mapping[str, str]
    config: Mapping[str, Any]

    @property
    def method(self) -> str:
        """The tool that the configuration names; empty without one."""
        found = self.config.get("quantization_config")
        method = found.get("quant_method") if isinstance(found, dict) else None
        return method if isinstance(method, str) else ""


@dataclass
class Found:
    """What a reader found.

    Attributes:
        weights: By the weight's name in the file: `MODULE.weight`.
        findings: What is approximate or refused, in the file's order.
    """

    weights: dict[str, GivenWeight] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def say(self, verdict: Verdict, place: str, words: str) -> None:
        """Notes what became of a part of the file."""
        self.findings.append(Finding(place, verdict, words))


class ResultReader(ABC):
    """Reads the files of one tool; a class of its own in a file of its own, and a line of the registry.

    Attributes:
        tool: Its name after `--from`.
        title: As people call it.
        reads: Which files it reads, in words.
    """

    tool: ClassVar[str]
    title: ClassVar[str]
    reads: ClassVar[str]

    @abstractmethod
    def recognizes(self, result: StoredResult) -> bool:
        """Whether files say of themselves that they are this tool's."""

    @abstractmethod
    def read(self, result: StoredResult) -> Found:
        """Takes all quantized weights apart.

        Raises:
            InvalidInput: The files are malformed.
        """


def by_channel(dtype: str, values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None = None) -> GivenWeight:  # fmt: skip
    """A weight with a scale for each row: values [n, ...], scale with n elements."""
    return _affine(WeightQuantization(dtype, symmetric=zero is None), values, scale.reshape(-1), zero)  # fmt: skip


def by_tensor(dtype: str, values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None = None) -> GivenWeight:  # fmt: skip
    """A weight with one scale."""
    quantization = WeightQuantization(dtype, granularity="tensor", symmetric=zero is None)
    return _affine(quantization, values, scale.reshape(()), zero)


def by_block(dtype: str, values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None = None) -> GivenWeight:  # fmt: skip
    """A matrix [n, k] with a scale for each block of k: scale [n, k / block]. One block for each row is a channel, as placing has it."""
    if scale.shape[1] == 1:
        return by_channel(dtype, values, scale, zero)
    block = values.shape[1] // max(1, scale.shape[1])
    quantization = WeightQuantization(
        dtype, granularity="block", axis=1, block=block, symmetric=zero is None
    )
    return _affine(quantization, values, scale, zero)


def _affine(
    quantization: WeightQuantization,
    values: torch.Tensor,
    scale: torch.Tensor,
    zero: torch.Tensor | None,
) -> GivenWeight:
    parts = {"": values.contiguous(), ".scale": scale.to(torch.float32).contiguous()}
    if zero is not None:
        parts[".zero_point"] = zero.reshape(scale.shape).to(values.dtype).contiguous()
    return GivenWeight(quantization, parts)


def weights_beside(result: StoredResult, suffix: str) -> Iterator[str]:
    """Modules that have a tensor of a name."""
    for name in result.tensors:
        if name.endswith(f".{suffix}"):
            yield name.removesuffix(f".{suffix}")
