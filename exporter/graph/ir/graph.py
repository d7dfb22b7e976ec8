"""The intermediate representation: one traced component call with named tensors and lazy weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from qdx.exporter.graph.ir.spec import TensorSpec
from qdx.exporter.graph.ir.weights import LazyWeights

__all__ = ["Graph", "OpenSize", "TensorSpec", "dtype_name", "fqn", "without_variant"]

_VARIANT: Final = re.compile(r"_[0-9]+\Z")


@dataclass(frozen=True)
class OpenSize:
    """What an open dimension is meant to be.

    Attributes:
        smallest: The least size.
        usual: That of the call which the graph was made for.
        largest: The greatest size.
    """

    smallest: int
    usual: int
    largest: int


def dtype_name(dtype: torch.dtype) -> str:
    """`float32` for `torch.float32`."""
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Graph:
    """One traced call of one component.

    Attributes:
        component: The component's name in the pipeline, such as `unet`.
        method: The method that was traced, such as `forward`; `forward_2` where it is a variant.
        program: ATen at composite level (convolution, linear, attention and norms stay whole); its
            parameters are fake, its constants and buffers real.
        inputs: In the order of the program's user inputs.
        outputs: In the order of the program's user outputs.
        weights: The parameters' bytes, by fully qualified name.
        sizes: What the open dimensions of the inputs are meant to be, by their symbols; empty where nobody said.
        constants: Numbers, words and flags that it was traced with, by argument.
        state: What the pipeline had changed in the component, by `path.attribute`.
        fixed: Tensors with whose values it was traced, by argument; it answers calls with these alone.
        float16: Whether it was traced for float16, with the guards of the component's own code in it.
        wide: Of such a graph, the parameters that the component's library loads in float32 among those in float16.
        large: Likewise, ports of sites, each by the key of the site and its name, whose values float16 does not hold.
    """

    component: str
    method: str
    program: ExportedProgram = field(repr=False)
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weights: LazyWeights = field(repr=False)
    sizes: Mapping[str, OpenSize] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False)
    float16: bool = False
    wide: frozenset[str] = frozenset()
    large: frozenset[tuple[str, str]] = frozenset()

    @property
    def where(self) -> str:
        """`unet.forward`, for messages and for keys."""
        return f"{self.component}.{self.method}"

    @property
    def parameters(self) -> dict[str, str]:
        """Fully qualified parameter name by placeholder name."""
        return self._lifted(InputKind.PARAMETER)

    @property
    def placeholders(self) -> dict[str, str]:
        """Placeholder name by input name."""
        names = self.program.graph_signature.user_inputs
        return {spec.name: str(name) for spec, name in zip(self.inputs, names, strict=True)}

    @property
    def buffers(self) -> dict[str, torch.Tensor]:
        """Real values of buffers and lifted constants by placeholder name."""
        return {
            spec.arg.name: self._constant(spec.target)
            for spec in self.program.graph_signature.input_specs
            if spec.kind in (InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
            and spec.target is not None
        }

    @property
    def dynamic_symbols(self) -> tuple[str, ...]:
        """Symbols of the dynamic dimensions among the inputs, each once."""
        found = (size for spec in self.inputs for size in spec.shape if isinstance(size, str))
        return tuple(dict.fromkeys(found))

    def _lifted(self, kind: InputKind) -> dict[str, str]:
        return {
            spec.arg.name: fqn(spec.target)
            for spec in self.program.graph_signature.input_specs
            if spec.kind is kind and spec.target is not None
        }

    def _constant(self, target: str) -> torch.Tensor:
        found: Any = self.program.state_dict.get(target, self.program.constants.get(target))
        assert isinstance(found, torch.Tensor), target
        return found


def without_variant(key: str) -> str:
    """`forward` for `forward_2`, the same method called with another set of tensors."""
    return _VARIANT.sub("", key)


def fqn(target: str) -> str:
    """A parameter's name in the component: the tracing wrapper's own prefix removed."""
    return target.removeprefix("module.")
