"""Lines of a builder's log as TensorRT-RTX writes them, made by hand."""

from __future__ import annotations

from collections.abc import Sequence

MEMORY = "Max Scratch Memory: 300 bytes\nTotal Activation Memory: 2000 bytes\nTotal Weights Memory: 1000 bytes\n"


def tensor(kind: str, name: str = "t", dimensions: str = "[64,64]") -> str:
    """A tensor of a layer, with an `Arbitrary` format, whose words have brackets and commas."""
    return (
        f"{{ Name: {name}, Dimensions: {dimensions}, Strides: [64,1], StrideOrder: [1,0], Datatype: {kind}, "
        "Format: (Arbitrary) Format with stride order = [1,0] }"
    )


def line(
    kind: str,
    nodes: Sequence[str] = (),
    *,
    inputs: Sequence[str] = (),
    constants: Sequence[str] = (),
    outputs: Sequence[str] = ("Half",),
    tactic: str = "",
    name: str = "",
    number: int = 0,
    program: int = 0,
) -> str:
    """One layer; types are the builder's words, such as `Half` and `Int8`."""
    fields = {
        "Name": name or f"{'+'.join(nodes) or kind}_myl{program}_{number}",
        "LayerType": kind,
        "Inputs": _list(inputs),
        "Constants": _list(constants),
        "Outputs": _list(outputs),
        "TacticName": tactic,
        "StreamId": "0",
        **({"EventId": "1"} if kind in {"signal", "wait"} else {}),
        "Metadata": "\x1f".join(f"[ONNX Layer: {node}]" for node in nodes),
    }
    return ", ".join(f"{key}: {value}" for key, value in fields.items())


def section(*lines: str) -> str:
    """A whole section, memory first, as the builder logs it."""
    return f"{MEMORY}Layers:\n" + "\n".join([*lines, ""])


def _list(kinds: Sequence[str]) -> str:
    """Of each its type, or its name and its type as `name:Half`."""
    made = [tensor(kind, name or "t") for name, _, kind in (each.rpartition(":") for each in kinds)]
    return f"[ {', '.join(made)}]" if made else "[]"
