"""A quantized graph whose weights and scales can be learned: what of it is trained, and its answers with gradients."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import torch

from qdx.exporter.devices import CPU
from qdx.exporter.dtypes import number_type
from qdx.exporter.errors import InternalError
from qdx.exporter.graph.analysis.sites import sites as find_sites
from qdx.tune.fake_quantization import Levels, fake_quantized
from qdx.tune.trained_weight import TrainedWeight, trained_weight
from qdx.tune.walk import GradientWalk, Value

if TYPE_CHECKING:
    from torch.fx import Node

    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.transforms.placement import ActivationQuantization, SitePlacement

__all__ = ["Student"]

_ATEN, _QDX = torch.ops.aten, torch.ops.qdx
_BLOCK_QUANTIZERS: Final = (_QDX.quantize_mxfp8.default, _QDX.quantize_nvfp4.default)


class Student:
    """A quantized graph.

    Args:
        base: The float graph in the form that is quantized.
        quantized: The quantized graph of it.
        placed: Its quantizers.
        tuned: Keys of the sites that learn; others stay as they are.
        rank: Of low-rank updates of weights; None learns each element.
        seed: Of what low-rank updates begin with.
        device: Where it computes.

    Attributes:
        weights: What is trained of weights, by the name under which they are stored.
    """

    def __init__(
        self,
        base: Graph,
        quantized: Graph,
        placed: Collection[SitePlacement],
        tuned: Collection[str],
        *,
        rank: int | None = None,
        seed: int = 0,
        device: torch.device = CPU,
    ) -> None:
        self._graph = quantized
        self._device = device
        self._aliases = base.weights.aliases
        self._sites = {site.key: site for site in find_sites(base)}
        self._twins: dict[str, Node] = {n.name: n for n in quantized.program.graph.nodes}
        self.weights: dict[str, TrainedWeight] = {}
        self._values: dict[str, torch.Tensor] = {}
        self._inputs: dict[str, torch.Tensor] = {}
        self._given: dict[str, Callable[[Value], Any]] = {}
        self._reads: dict[str, tuple[Node, ...]] = {}
        self._place_weights(base, placed, frozenset(tuned), rank, seed)
        self._quantizers(placed, frozenset(tuned))
        self._walk = GradientWalk(quantized, self._given, self._reads, device)

    @property
    def leaves(self) -> dict[str, torch.Tensor]:
        """Every trained tensor, by name."""
        found = {
            f"weight.{name}.{part}": leaf
            for name, one in self.weights.items()
            for part, leaf in one.leaves.items()
        }
        return found | {f"input.{name}": leaf for name, leaf in self._inputs.items()}

    @property
    def units(self) -> dict[str, float]:
        """By name of a trained tensor, what a step of its optimizer is measured by: see `distil`."""
        found = {
            f"weight.{name}.{part}": unit
            for name, one in self.weights.items()
            for part, unit in one.units.items()
        }
        return found | {
            f"input.{name}": float(leaf.detach().mean()) for name, leaf in self._inputs.items()
        }

    def set_weights(self, values: Mapping[str, torch.Tensor]) -> None:
        """What trained weights stand for in the runs to come, by name."""
        self._values = dict(values)

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The outputs by name."""
        return self._walk(inputs)

    def scales_of(self, placed: SitePlacement, index: int) -> torch.Tensor | None:
        """What an input's quantizer has learned: its scale, or its groups' ratios; None where it learns nothing."""
        trained = self._inputs.get(self._quantizer_of(placed, index).name)
        return None if trained is None else trained.detach().cpu()

    def _quantizer_of(self, placed: SitePlacement, index: int) -> Node:
        """The last node of an input's quantizer."""
        found = self._twins[self._sites[placed.key].node].args[index]
        assert isinstance(found, torch.fx.Node), placed.key
        return found

    def _place_weights(
        self,
        base: Graph,
        placed: Collection[SitePlacement],
        tuned: frozenset[str],
        rank: int | None,
        seed: int,
    ) -> None:
        nodes = {node.name: node for node in base.program.graph.nodes}
        owners = {place: self._aliases.get(name, name) for place, name in base.parameters.items()}
        fixed: dict[str, torch.Tensor] = {}
        for one in placed:
            site = self._sites[one.key]
            if one.weight is None or site.weight is None:
                continue
            name = self._aliases.get(site.weight, site.weight)
            index = _weight_index(nodes[site.node], owners, name)
            stands_for = self._twins[site.node].args[index]
            assert isinstance(stands_for, torch.fx.Node), site.key
            if one.key in tuned:
                if name not in self.weights:
                    self.weights[name] = trained_weight(
                        base.weights[name], one.weight, rank, seed + len(self.weights), self._device
                    )
                self._given[stands_for.name] = partial(self._trained, name)
            elif stands_for.name not in fixed:
                fixed[stands_for.name] = self._computed(stands_for)
                self._given[stands_for.name] = partial(_constant, fixed[stands_for.name])
            self._reads[stands_for.name] = ()

    def _trained(self, name: str, value: Value) -> torch.Tensor:
        del value
        return self._values[name]

    def _computed(self, node: Node) -> torch.Tensor:
        """What a weight that stays stands for."""
        with torch.no_grad():
            found: torch.Tensor = _Computed(self._graph, {}, CPU)(node)
        return found.to(self._device)

    def _quantizers(self, placed: Collection[SitePlacement], tuned: frozenset[str]) -> None:
        uses: dict[str, list[tuple[str, ActivationQuantization]]] = {}
        for one in placed:
            for index, quantization in one.inputs.items():
                last = self._quantizer_of(one, index)
                uses.setdefault(last.name, []).append((one.key, quantization))
                if quantization.block_floats:
                    self._straight_through(last)
        for node in self._graph.program.graph.nodes:
            if node.target is not _QDX.dequantize_tensor.default:
                continue
            own = uses.get(node.name, [])
            # A scale that another operation reads too, which is to stay as it is, stays.
            learns = bool(own) and all(key in tuned for key, _ in own)
            self._fake(node, own[0][1] if own else None, learns=learns)

    def _fake(
        self, node: Node, quantization: ActivationQuantization | None, *, learns: bool
    ) -> None:
        """Lets a pair of quantizing and reading back pass gradients."""
        integers = node.args[0]
        assert isinstance(integers, torch.fx.Node)
        source, scale, zero_point, dtype = integers.args
        assert isinstance(source, torch.fx.Node)
        kind = number_type(str(dtype))
        bounds = None
        if quantization is not None and quantization.bounds is not None and source.target is _ATEN.clamp.default:  # fmt: skip
            bounds = quantization.bounds
            source = source.args[0]
            assert isinstance(source, torch.fx.Node)
        leaf = torch.tensor(float(scale), dtype=torch.float32, device=self._device)  # type: ignore[arg-type]
        zero = torch.tensor(float(zero_point), dtype=torch.float32, device=self._device)  # type: ignore[arg-type]
        if learns and quantization is not None and not quantization.token:
            if quantization.groups is None:
                self._inputs[node.name] = leaf.requires_grad_()
            else:
                self._train_ratios(node, source, quantization)
        levels = Levels.of(kind, bounds, float(zero_point))  # type: ignore[arg-type]

        def made(value: Value) -> torch.Tensor:
            return fake_quantized(value(source), leaf, zero, levels)

        self._given[node.name] = made
        self._reads[node.name] = (source,)

    def _train_ratios(self, node: Node, source: Node, quantization: ActivationQuantization) -> None:
        """Makes the table of groups' ratios a trained tensor; one table stands for every use of a tensor."""
        assert quantization.groups is not None
        while source.target is not _ATEN.div.Tensor:
            (source,) = (one for one in source.args[:1] if isinstance(one, torch.fx.Node))
        factor = source.args[1]
        assert isinstance(factor, torch.fx.Node)
        table = factor.args[0]
        assert isinstance(table, torch.fx.Node)
        ratios = torch.tensor(quantization.groups.ratios, dtype=torch.float32, device=self._device)
        leaf = ratios.requires_grad_()
        self._inputs[node.name] = leaf
        self._given[table.name] = partial(_constant, leaf)
        self._reads[table.name] = ()

    def _straight_through(self, last: Node) -> None:
        """Lets floats in blocks pass gradients: their scales come from the values, and are not learned."""
        first = last
        while first.target not in _BLOCK_QUANTIZERS:
            source = first.args[0]
            if not isinstance(source, torch.fx.Node):
                raise InternalError(
                    f"`{self._graph.where}`: `{last.name}` is not behind a quantizer"
                )
            first = source
        source = first.args[0]
        assert isinstance(source, torch.fx.Node)

        def made(value: Value) -> torch.Tensor:
            values: torch.Tensor = value(source)
            with torch.no_grad():
                rounded = self._rounded(last, first, values.detach())
            return values + (rounded - values.detach())

        self._given[last.name] = made
        self._reads[last.name] = (source,)

    def _rounded(self, last: Node, first: Node, values: torch.Tensor) -> torch.Tensor:
        known: dict[Node, Any] = {first.args[0]: values}  # type: ignore[dict-item]
        found: torch.Tensor = _Computed(self._graph, known, values.device)(last)
        return found


class _Computed:
    """Values of nodes by what they read, each computed once; no function that calls itself, which would hold them all.

    Args:
        graph: Whose parameters and constants are read.
        known: Values that are there.
        device: Where constants are wanted.
    """

    def __init__(self, graph: Graph, known: dict[Node, Any], device: torch.device) -> None:
        self._graph = graph
        self._known = known
        self._device = device

    def __call__(self, node: Node) -> Any:
        """The value of a node."""
        if node not in self._known:
            self._known[node] = self._value(node)
        return self._known[node]

    def _value(self, node: Node) -> Any:
        if node.name in self._graph.parameters:
            return self._graph.weights[self._graph.parameters[node.name]].read()
        if node.op == "placeholder":
            return self._graph.buffers[node.name].to(self._device)
        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), self)
        assert callable(node.target)
        return node.target(*args, **kwargs)


def _constant(tensor: torch.Tensor, value: Value) -> torch.Tensor:
    del value
    return tensor


def _weight_index(node: Node, owners: Mapping[str, str], weight: str) -> int:
    """Which argument of an operation is a weight, of those whose names are known by placeholder."""
    for index, one in enumerate(node.args):
        if isinstance(one, torch.fx.Node) and owners.get(one.name) == weight:
            return index
    raise InternalError(f"`{node.name}`: `{weight}` is not an argument")
