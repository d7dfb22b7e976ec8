"""What an engine says of its layers, in the forms of TensorRT 10 and 11.

Until 10, a tensor has one field for layout and type, such as `Row major linear FP16 format` or `Half`; from 11
on, the type has its own. Fused layers name the ONNX nodes that they come from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json

from qdx.backends.contract import KernelExecution
from qdx.exporter.errors import InvalidBundle, quoted

__all__ = ["NARROWEST", "Layer", "executions", "nodes_of", "parse_layers", "type_of_word"]

_NODE: Final = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_WORDS: Final = {
    "fp32": "float32",
    "float": "float32",
    "float32": "float32",
    "fp16": "float16",
    "half": "float16",
    "float16": "float16",
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "int8": "int8",
    "fp8": "float8_e4m3fn",
    "e4m3": "float8_e4m3fn",
    "fp8e4m3": "float8_e4m3fn",
    "fp4": "float4_e2m1fn",
    "e2m1": "float4_e2m1fn",
    "fp4e2m1": "float4_e2m1fn",
    "fp8ue8m0": "float8_e8m0fnu",
    "int4": "int4",
    "int32": "int32",
    "int64": "int64",
    "bool": "bool",
    "uint8": "uint8",
}
"""Types by the words that stand for them; spelled in any case."""
_WORD: Final = re.compile(r"[A-Za-z]+[0-9]*(?:[A-Za-z0-9]*)")
NARROWEST: Final = (
    "float4_e2m1fn",
    "int4",
    "float8_e4m3fn",
    "int8",
    "float16",
    "bfloat16",
    "float32",
)
"""Types of factors, the narrowest first: beside a narrow one, a wider one is a bias or a skip connection."""


@dataclass(frozen=True)
class Layer:
    """One kernel of an engine.

    Attributes:
        name: TensorRT's name of it.
        kind: TensorRT's kind, such as `CaskConvolution`, `gemm` or `kgen`.
        nodes: Names of the ONNX nodes that it computes.
        inputs: Types that it reads, torch's names; `unknown` for those that have no name here.
        outputs: Types that it writes.
        tactic: Name of the kernel; empty where TensorRT does not say.
    """

    name: str
    kind: str
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tactic: str = ""

    @property
    def precision(self) -> str:
        """The narrowest type that it reads; `unknown` where it reads no numbers or says none.

        A layer that decompresses its weights inside itself reads wide numbers, and has their type.
        """
        return next((kind for kind in NARROWEST if kind in self.inputs), "unknown")


def parse_layers(text: str, *, where: str = "engine") -> tuple[Layer, ...]:
    """Reads an engine's description of itself.

    Args:
        text: JSON as TensorRT's inspector gives it for a whole engine.
        where: The engine's file, for messages.

    Raises:
        InvalidBundle: It is no such description, or one without details.
    """
    try:
        found = from_json(text)
    except ValueError as error:
        raise InvalidBundle(f"{quoted(where)}: its description is no JSON: {error}") from error
    layers = found.get("Layers") if isinstance(found, Mapping) else None
    if not isinstance(layers, list):
        raise InvalidBundle(f"{quoted(where)}: its description has no `Layers`")
    if any(not isinstance(layer, Mapping) for layer in layers):
        raise InvalidBundle(
            f"{quoted(where)}: tells the names of its layers alone, expected their types",
            hint="build it with profiling verbosity DETAILED, as `qdx build` does",
        )
    return tuple(_layer(layer) for layer in layers)


def executions(
    layers: Iterable[Layer],
    sites_of: Callable[[str], tuple[str, ...]],
    times_ms: Mapping[str, float] | None = None,
) -> tuple[KernelExecution, ...]:
    """Says what an engine executes, by site.

    Args:
        layers: Of the engine.
        sites_of: Sites by name of an ONNX node; none for nodes that no plan addresses.
        times_ms: Measured time by layer's name, in milliseconds; None where nothing was measured.

    Returns:
        An entry for each layer, in order.
    """
    total = sum(times_ms.values()) if times_ms else 0.0
    found = []
    for layer in layers:
        sites = dict.fromkeys(site for node in layer.nodes for site in sites_of(node))
        share = times_ms.get(layer.name, 0.0) / total if times_ms and total else None
        found.append(KernelExecution(layer.name, layer.kind, layer.precision, tuple(sites), share))
    return tuple(found)


def nodes_of(metadata: str) -> tuple[str, ...]:
    """Names of the ONNX nodes in a layer's metadata, each once and in order."""
    return tuple(dict.fromkeys(_NODE.findall(metadata)))


def type_of_word(word: str) -> str | None:
    """Torch's name of a type by TensorRT's word for it; None for a word that stands for none."""
    return _WORDS.get(word.lower())


def _layer(record: Mapping[str, Any]) -> Layer:
    return Layer(
        str(record.get("Name", "")),
        str(record.get("LayerType", "")),
        nodes_of(str(record.get("Metadata", ""))),
        _types(record.get("Inputs")),
        _types(record.get("Outputs")),
        str(record.get("TacticName", "")),
    )


def _types(tensors: object) -> tuple[str, ...]:
    if not isinstance(tensors, list):
        return ()
    return tuple(_type(tensor) for tensor in tensors if isinstance(tensor, Mapping))


def _type(tensor: Mapping[str, Any]) -> str:
    for key in ("DataType", "Datatype", "Format/Datatype"):
        for word in _WORD.findall(str(tensor.get(key, ""))):
            if (found := type_of_word(word)) is not None:
                return found
    return "unknown"
