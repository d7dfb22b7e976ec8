"""Low-rank adapters of an opened pipeline, and the arrays that its artifacts are given for them.

Which adapters count, and how much, follows diffusers and peft: what is loaded last is active alone, a fused layer computes
with what was fused, and what stays fused when adapters are unloaded is part of the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from qdx.exporter.capture.lora_scale import taken_scale
from qdx.exporter.errors import UsageError, quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qdx.bundle.manifest import LoraInputs, LoraLayer
    from qdx.exporter.capture.calls import LiveCall
    from qdx.exporter.capture.deltas import Delta
    from qdx.runtime.adapted_runner import AdaptedRunner

__all__ = ["AdaptedMethod", "Adapter", "Adapters", "State"]

Layers = Mapping[str, Mapping[str, "Delta"]]
"""What an adapter adds, by component and path of the layer."""


@dataclass(frozen=True)
class AdaptedMethod:
    """A method whose artifact takes adapters.

    Attributes:
        inputs: For them.
        runner: The artifact.
    """

    inputs: LoraInputs
    runner: AdaptedRunner


@dataclass(frozen=True)
class Adapter:
    """An adapter and how much it counts.

    Attributes:
        name: The user's.
        layers: What it adds.
        weights: Its factor by component.
    """

    name: str
    layers: Layers = field(repr=False)
    weights: Mapping[str, float]

    def weighted(self, factor: float) -> Adapter:
        """The adapter with all its weights multiplied."""
        return replace(self, weights={c: factor * w for c, w in self.weights.items()})

    def of_layer(self, component: str, path: str, scale: float) -> Iterator[_Part]:
        """What it adds to a layer, if anything."""
        delta = self.layers.get(component, {}).get(path)
        factor = scale * self.weights.get(component, 1.0)
        if delta is not None and factor:
            yield _Part(self.name, delta, factor)


@dataclass(frozen=True)
class State:
    """Every adapter that was loaded, and what is made of them.

    Attributes:
        loaded: By name.
        active: Those that count, with their weights, in order.
        enabled: Whether they do at all.
        fused: Fused ones that can be taken out again.
        kept: Fused ones whose adapters were unloaded since.
    """

    loaded: Mapping[str, Layers] = field(default_factory=dict, repr=False)
    active: tuple[Adapter, ...] = ()
    enabled: bool = True
    fused: tuple[Adapter, ...] = ()
    kept: tuple[Adapter, ...] = ()

    def parts(self, component: str, path: str, scale: float) -> tuple[_Part, ...]:
        """What is added to a layer; the scale is that of a call, which fused adapters do not know."""
        kept = _parts(self.kept, component, path)
        fused = _parts(self.fused, component, path)
        if fused or not self.enabled:
            return kept + fused
        return kept + _parts(self.active, component, path, scale)


@dataclass(frozen=True)
class _Part:
    """One adapter's share in a layer.

    Attributes:
        name: Of the adapter.
        delta: Its matrices.
        factor: Of their product, beside their own.
    """

    name: str
    delta: Delta
    factor: float

    @property
    def rank(self) -> int:
        """Of the matrices."""
        return int(self.delta.down.shape[0])


def _parts(
    adapters: Iterable[Adapter], component: str, path: str, scale: float = 1.0
) -> tuple[_Part, ...]:
    return tuple(part for one in adapters for part in one.of_layer(component, path, scale))


class Adapters:
    """The adapters of an opened pipeline.

    Args:
        methods: What takes them, by `component.method`.

    Attributes:
        state: What is loaded and counts.
    """

    def __init__(self, methods: Mapping[str, AdaptedMethod]) -> None:
        self.state = State()
        self._methods = methods
        self._scales: Mapping[str, float] = {}

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the components that take adapters."""
        return tuple(dict.fromkeys(where.partition(".")[0] for where in self._methods))

    def check(self, layers: Layers, source: str) -> None:
        """Refuses an adapter that the artifacts have no inputs for, or too small ones.

        Args:
            layers: What it adds.
            source: What messages call it.

        Raises:
            UsageError: Naming the layer.
        """
        for component, own in layers.items():
            for path, delta in own.items():
                self._check_layer(component, path, int(delta.down.shape[0]), source)

    def put(self, state: State, scales: Mapping[str, float] | None = None) -> None:
        """Lets a state be the current one.

        Args:
            state: The state.
            scales: Of calls by component; None leaves them.

        Raises:
            UsageError: The ranks of adapters are more than an artifact takes, or a weight is no finite number; nothing has
                changed then.
        """
        scales = self._scales if scales is None else scales
        found = {where: self._arrays(state, where, scales) for where in self._methods}
        for where, arrays in found.items():
            self._methods[where].runner.given = arrays
        self.state, self._scales = state, scales

    def prepared(self, call: LiveCall) -> LiveCall:
        """A call without its scale of adapters, which the artifacts of its component have then.

        Raises:
            UsageError: As for `put`.
        """
        component = call.component
        if component not in self.components:
            return call
        scale, call = taken_scale(call)
        if scale != self._scales.get(component, 1.0):
            self.put(self.state, {**self._scales, component: scale})
        return call

    def _check_layer(self, component: str, path: str, rank: int, source: str) -> None:
        where = quoted(f"{component}.{path}")
        methods = [m for w, m in self._methods.items() if w.partition(".")[0] == component]
        if not methods:
            raise UsageError(
                f"{quoted(source)}: adapts {where}, and of the bundle's components {', '.join(self.components)} "
                "takes adapters at run time",
                hint="`qdx export --lora FILE` merges it into the weights of every component; or give load_lora_weights "
                "the file's tensors without those of the component, as a dictionary",
            )
        paths = {layer.path for method in methods for layer in method.inputs.layers}
        if path not in paths:
            raise UsageError(
                f"{quoted(source)}: adapts {where}, which takes no adapter at run time: linear layers do, and convolutions "
                "that mix no pixels, unless they share their weights or the call does not use them",
                hint="`qdx export --lora FILE` merges the adapter into the weights",
            )
        limit = min(method.inputs.rank for method in methods)
        if rank > limit:
            raise UsageError(
                f"{quoted(source)}: its rank at {where} is {rank}, and the bundle takes {limit}",
                hint=f"export again with --lora-ready {rank}",
            )

    def _arrays(
        self, state: State, where: str, scales: Mapping[str, float]
    ) -> dict[str, NDArray[Any]]:
        """What an artifact is given, for the layers to which something is added."""
        component = where.partition(".")[0]
        inputs = self._methods[where].inputs
        found: dict[str, NDArray[Any]] = {}
        for layer in inputs.layers:
            if parts := state.parts(component, layer.path, scales.get(component, 1.0)):
                _check_parts(parts, f"{component}.{layer.path}", inputs.rank)
                found |= _stacked(parts, layer, inputs.rank)
        return found


def _check_parts(parts: tuple[_Part, ...], where: str, limit: int) -> None:
    for part in parts:
        if not math.isfinite(part.factor):
            raise UsageError(
                f"{quoted(part.name)}: its weight is {part.factor}, expected a finite number"
            )
    total = sum(part.rank for part in parts)
    if total > limit:
        names = ", ".join(f"{quoted(part.name)} ({part.rank})" for part in parts)
        raise UsageError(
            f"{quoted(where)}: the ranks of its adapters {names} are {total} together, and the bundle takes {limit}",
            hint=f"use fewer of them at a time (set_adapters), or export again with --lora-ready {total}",
        )


def _stacked(parts: tuple[_Part, ...], layer: LoraLayer, rank: int) -> dict[str, NDArray[Any]]:
    """The matrices of several adapters as one pair: the product of the pair is the sum of their products."""
    down, up = torch.zeros(rank, layer.inputs), torch.zeros(layer.outputs, rank)
    start = 0
    for part in parts:
        end = start + part.rank
        down[start:end] = part.delta.down.flatten(1)
        up[:, start:end] = part.delta.up.flatten(1) * (part.delta.factor * part.factor)
        start = end
    return {layer.down: down.numpy(), layer.up: up.numpy()}
