"""What a plan becomes for one pipeline on one target: one entry for each component and each site."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from qdx.exporter.graph.ir.site import Site
from qdx.exporter.plan.resolve.feasibility import Support
from qdx.exporter.plan.resolve.settle import Chosen
from qdx.exporter.plan.schema.gates import Gates
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.plan.schema.scheme import AskedInputs, AskedWeights, Inputs, Weights

__all__ = ["FloatTypes", "InputsByTimestep", "Resolution", "ResolvedPlan", "SiteResolution"]

InputsByTimestep = tuple[tuple[range, Inputs], ...]
"""Ranges of the calibration's timestep groups, each with its scheme and a scale of its own."""


@dataclass(frozen=True)
class FloatTypes:
    """Types of what is not quantized of a component.

    Attributes:
        storage: Torch name of the type in which its weights are stored.
        mixed: Whether, where that has sixteen bits and is computed in them, everything but products is in float32.
    """

    storage: str
    mixed: bool = False


@dataclass(frozen=True)
class Resolution:
    """What becomes of one component.

    Attributes:
        component: The pipeline's name for it.
        asked: Float type that the plan asks for, for what is not quantized; `float` where it leaves that to the target.
        rule: The rule that decided: its id, or `rules[2]`; `default` where none matched.
        becomes: Type in which the weights that are not quantized are stored.
        computes: Type in which the operations run that are not quantized.
        why: The reason in words.
    """

    component: str
    asked: str
    rule: str
    becomes: str
    computes: str
    why: str


@dataclass(frozen=True)
class SiteResolution:
    """What becomes of one site.

    Attributes:
        where: `component.method` of the graph.
        site: The operation.
        asked_weights: What the plan asks for its weight; None where it has none.
        asked_inputs: What the plan asks for its inputs; None where there is nothing to quantize.
            Where it depends on the timestep, the scheme of the first group.
        weights_rule: The rule that decided the weights, as in `Resolution`; empty without weights.
        inputs_rule: The rule or rules that decided the inputs; empty without inputs.
        weights: How the weight is stored; None where there is none.
        inputs: How the inputs are quantized; None where they stay float. Where scales depend on the
            timestep, the schemes by ranges of the calibration's groups, from the noisiest.
        stored_dtype: Type that holds the weight in the artifact: wider than `weights.dtype` where
            the target carries narrow values in a wider type; empty without weights.
        form: What the target makes of it.
        why: The reason in words.
        scale_dtype: Type that holds the scales of a quantized weight in the artifact.
        chosen: The values of the schemes that a plan may leave unsaid, and who chose them.
        inputs_rules: The rules that decided the inputs in the plan's order, each with the groups of timesteps at which
            it did; empty without inputs, and where the resolution was read out of a bundle.
        float_dtype: Type in which the component stores what is not quantized.
    """

    where: str
    site: Site
    asked_weights: AskedWeights | None
    asked_inputs: AskedInputs | None
    weights_rule: str
    inputs_rule: str
    weights: Weights | None
    inputs: Inputs | InputsByTimestep | None
    stored_dtype: str
    form: Support
    why: str
    scale_dtype: str = "float32"
    chosen: tuple[Chosen, ...] = ()
    inputs_rules: tuple[tuple[str, tuple[int, ...]], ...] = field(default=(), compare=False)
    float_dtype: str = "float32"

    @property
    def key(self) -> str:
        """The site's key."""
        return self.site.key

    @property
    def quantized_weights(self) -> Weights | None:
        """The scheme of the weight where it is quantized, else None."""
        return self.weights if self.weights is not None and self.weights.quantized else None

    @property
    def segments(self) -> tuple[tuple[range | None, Inputs], ...]:
        """The schemes of quantized inputs with their timestep groups; None stands for all groups."""
        if self.inputs is None:
            return ()
        if isinstance(self.inputs, Inputs):
            return ((None, self.inputs),)
        return self.inputs

    def to_json(self) -> dict[str, Any]:
        """The resolution as plain JSON data."""
        return {
            "where": self.where,
            "site": self.site.to_json(),
            "asked_weights": _scheme(self.asked_weights),
            "asked_inputs": _scheme(self.asked_inputs),
            "weights_rule": self.weights_rule,
            "inputs_rule": self.inputs_rule,
            "weights": _scheme(self.weights),
            "inputs": self._inputs_json(),
            "stored_dtype": self.stored_dtype,
            "form": self.form,
            "why": self.why,
            "chosen": [asdict(one) for one in self.chosen],
        }

    def _inputs_json(self) -> Any:
        if self.inputs is None or isinstance(self.inputs, Inputs):
            return _scheme(self.inputs)
        return [
            {"groups": [groups.start, groups.stop], **(_scheme(inputs) or {})}
            for groups, inputs in self.inputs
        ]


@dataclass(frozen=True)
class ResolvedPlan:
    """A plan as one target will carry it out for one pipeline.

    Attributes:
        plan: The intent.
        target: Name of the target.
        components: One resolution for each component, in the order given.
        gates: The acceptance test, with every bound said.
        mixed_precision: Whether of what is stored and computed in sixteen bits only products are computed so.
        chosen: The values of the whole plan that it may leave unsaid, and who chose them.
        sites: Resolutions of the sites of each graph by `component.method`, in the graph's order.
        tuned: Keys of the sites of each graph that learn once they are quantized, likewise; none where nothing learns.
    """

    plan: Plan
    target: str
    components: tuple[Resolution, ...]
    gates: Gates
    mixed_precision: bool = False
    chosen: tuple[Chosen, ...] = ()
    sites: Mapping[str, tuple[SiteResolution, ...]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    tuned: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))

    def storage_dtype(self, component: str) -> str:
        """Returns the torch name of the type in which a component's float weights are stored.

        Raises:
            KeyError: The component was not resolved.
        """
        return {r.component: r for r in self.components}[component].becomes

    def float_types(self, component: str) -> FloatTypes:
        """Returns the types of what is not quantized of a component.

        Raises:
            KeyError: The component was not resolved.
        """
        return FloatTypes(self.storage_dtype(component), self.mixed_precision)

    def site(self, where: str, key: str) -> SiteResolution:
        """Returns what becomes of one site.

        Raises:
            KeyError: There is no such graph or site.
        """
        return {resolution.key: resolution for resolution in self.sites[where]}[key]

    def quantized(self, where: str) -> tuple[SiteResolution, ...]:
        """Returns the sites of a graph whose weights or inputs are quantized, in the graph's order."""
        return tuple(
            r for r in self.sites.get(where, ()) if r.quantized_weights is not None or r.segments
        )

    def placed(self, where: str, sites: Sequence[Site]) -> Iterator[tuple[Site, SiteResolution]]:
        """Yields what a target quantizes in one graph: those of its sites, with what becomes of them, in the plan's order.

        Args:
            where: The graph.
            sites: Of the graph as it is placed, in which attention may have been opened.
        """
        known = {site.key: site for site in sites}
        for resolution in self.quantized(where):
            if resolution.key in known and resolution.form not in {"float", "refused"}:
                yield known[resolution.key], resolution

    def quantized_products(self, where: str) -> tuple[str, ...]:
        """Returns the keys of a graph's attention products whose inputs are quantized, in its order."""
        return tuple(
            r.key for r in self.quantized(where) if r.site.is_attention_product and r.segments
        )

    def to_json(self) -> list[dict[str, Any]]:
        """Returns the resolutions of components as plain JSON data; for manifests and tables."""
        return [asdict(resolution) for resolution in self.components]

    def sites_to_json(self) -> list[dict[str, Any]]:
        """Returns the resolutions of sites as plain JSON data, graph by graph."""
        return [resolution.to_json() for graph in self.sites.values() for resolution in graph]


def _scheme(part: AskedWeights | AskedInputs | None) -> dict[str, Any] | None:
    """A scheme as JSON, with every default written out."""
    return None if part is None else part.model_dump(mode="json", exclude_none=True)
