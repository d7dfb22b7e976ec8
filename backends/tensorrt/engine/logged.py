"""Whether an engine on the device is what the builder's log says of it.

The audit without a device reads the log that is stored beside the engine. Where there is a device, the engine tells of
itself, and the two must agree: same layers, each with the same kind, types and ONNX nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from qdx.exporter.errors import InvalidBundle, quoted

if TYPE_CHECKING:
    from qdx.backends.tensorrt.engine.inspect import Layer
    from qdx.backends.tensorrt.engine.layer_log import LayerLog

__all__ = ["check_logged"]


class _Told(NamedTuple):
    """What both tell of a layer."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]

    def __str__(self) -> str:
        types = f"reads {', '.join(self.inputs) or 'nothing'}, writes {', '.join(self.outputs) or 'nothing'}"
        return f"{quoted(self.name)} is {self.kind}, {types}, for {len(self.nodes)} nodes"


def check_logged(inspected: Iterable[Layer], log: LayerLog, where: str) -> None:
    """Compares what an engine says of its layers with the log of its build.

    Args:
        inspected: What the engine on the device says.
        log: What the builder said.
        where: The engine's file, for messages.

    Raises:
        InvalidBundle: A layer is not in both, or has another kind, other types or other nodes.
    """
    here = Counter(
        _Told(one.name, one.kind, one.inputs, one.outputs, tuple(sorted(one.nodes)))
        for one in inspected
    )
    there = Counter(
        _Told(
            one.name,
            one.kind,
            tuple(tensor.dtype for tensor in one.inputs),
            tuple(tensor.dtype for tensor in one.outputs),
            tuple(sorted(one.nodes)),
        )
        for one in log.layers
    )
    if here == there:
        return
    only_here, only_there = list((here - there).elements()), list((there - here).elements())
    raise InvalidBundle(
        f"{quoted(where)}: the engine on this device is not what the log says: "
        f"{len(only_here)} layers of {here.total()} are not in the log, {len(only_there)} of {there.total()} in it are "
        f"not in the engine; {_first('the engine', only_here)}{_first('the log', only_there)}".rstrip(
            "; "
        ),
        hint="build the engine again with `qdx build --force`",
    )


def _first(who: str, layers: list[_Told]) -> str:
    return f"{who}: {layers[0]}; " if layers else ""
