"""Options of running an engine, as targets and users give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from qdx.backends.tensorrt.flavour import ENTERPRISE, Flavour
from qdx.exporter.errors import UsageError, quoted

__all__ = ["BUDGET", "RunOptions", "run_options"]

BUDGET: Final = "weight_streaming_budget_bytes"
_GRAPH: Final = "cuda_graph"
_DEVICE: Final = "device"
_WHEN: Final = "kernel_specialization"
_SWITCH: Final = {"on": True, "off": False}
_SPECIALIZATIONS: Final = ("eager", "lazy", "none")


@dataclass(frozen=True)
class RunOptions:
    """How an engine is run.

    Attributes:
        device: Number of the device.
        cuda_graph: Whether an execution is replayed as a CUDA graph; TensorRT does that where shapes are static.
        weight_streaming_budget_bytes: Weights that stay on the device; None for all of them.
        kernel_specialization: When TensorRT-RTX compiles kernels for the shapes of a call: `eager`, before the call, so
            that every call of the same shapes runs the same kernels, `lazy`, beside the first calls, or `none`.
    """

    device: int = 0
    cuda_graph: bool = True
    weight_streaming_budget_bytes: int | None = None
    kernel_specialization: str = _SPECIALIZATIONS[0]


def run_options(options: Mapping[str, str], flavour: Flavour = ENTERPRISE) -> RunOptions:
    """Reads options of running an engine of a flavour.

    Raises:
        UsageError: One is unknown, or has no such value.
    """
    known = {BUDGET, _GRAPH, _DEVICE, *((_WHEN,) if flavour.builds_anywhere else ())}
    unknown = sorted(options.keys() - known)
    if unknown:
        raise UsageError(
            f"{quoted(unknown[0])}: no such option of running an engine of {flavour.title}",
            hint=f"expected {', '.join(f'`{name}`' for name in sorted(known))}",
        )
    when = options.get(_WHEN, _SPECIALIZATIONS[0])
    if when not in _SPECIALIZATIONS:
        expected = ", ".join(_SPECIALIZATIONS)
        raise UsageError(f"`{_WHEN}`: got {quoted(when)}, expected one of {expected}")
    graph = options.get(_GRAPH, "on")
    if graph not in _SWITCH:
        raise UsageError(f"`{_GRAPH}`: got {quoted(graph)}, expected on or off")
    budget = options.get(BUDGET)
    return RunOptions(
        _count(_DEVICE, options.get(_DEVICE, "0")),
        _SWITCH[graph],
        None if budget is None else _count(BUDGET, budget),
        when,
    )


def _count(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(f"`{name}`: got {quoted(text)}, expected a number from 0 on")
    return int(text)
