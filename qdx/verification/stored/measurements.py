"""The measurements of a verification as `report.json` has them: all that gates are judged by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import ConfigDict, Field

from qdx.backends.contract import Way
from qdx.exporter.measure.metrics import Level, OutputKind
from qdx.verification.measure.samples import run_label
from qdx.verification.stored.values import (
    Count,
    Number,
    Stored,
    WithNumbers,
    WithSummaries,
)

__all__ = [
    "Measurements",
    "MetricHead",
    "ReplayedCall",
    "StoredAudit",
    "StoredComponentAudit",
    "StoredComponents",
    "StoredConditioning",
    "StoredInterval",
    "StoredLocalization",
    "StoredMethod",
    "StoredPart",
    "StoredPipeline",
    "StoredRun",
    "StoredSamples",
    "StoredTies",
]


class MetricHead(Stored):
    """What tables need to know of a metric; see `qdx.exporter.measure.metrics.Metric`."""

    name: str
    label: str
    unit: str
    better: Literal["more", "less"]
    levels: tuple[Level, ...]

    @property
    def own_unit(self) -> str:
        """Its unit where figures on pages do not bear it: they bear decibels."""
        return "" if self.unit == "dB" else self.unit

    @property
    def title(self) -> str:
        """Its name above figures on pages: with the unit that they do not bear."""
        return f"{self.label}, {self.own_unit}" if self.own_unit else self.label

    @property
    def heading(self) -> str:
        """`SQNR, dB`."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    @property
    def extreme(self) -> str:
        """What tables call the bad end."""
        return "least" if self.better == "more" else "greatest"


class StoredCalls(Stored):
    """How many calls were made, could be replayed, and were."""

    made: Count
    recorded: Count
    measured: Count


class ReplayedCall(WithNumbers):
    """One call on the target, with the values of the metrics."""

    index: Count
    error: str


class StoredRungCall(Stored):
    """One call on one rung; what was not compared is not there."""

    index: Count
    float_sqnr_db: Number
    previous_sqnr_db: Number = None
    quantized_sqnr_db: Number = None
    error: str


class StoredRung(Stored):
    """One way to compute a method."""

    name: str
    float_sqnr_db_min: Number
    previous_sqnr_db_min: Number
    calls: tuple[StoredRungCall, ...]


class StoredConditioningStep(Stored):
    """The strength of guidance at one step."""

    index: Count
    reference_std: Number
    artifact_std: Number
    ratio: Number


class StoredConditioning(Stored):
    """The strength of guidance of one method."""

    applicable: bool
    note: str
    ratio_min: Number
    ratio_max: Number
    steps: tuple[StoredConditioningStep, ...]


class StoredMethod(WithSummaries):
    """One method of a component."""

    calls: StoredCalls
    why_not_all: str
    error: str
    rungs: tuple[StoredRung, ...]
    conditioning: StoredConditioning | None
    measured: tuple[ReplayedCall, ...]


class StoredComponent(WithSummaries):
    """One component: its methods, and all of them together."""

    calls: StoredCalls
    methods: dict[str, StoredMethod]


class StoredComponents(Stored):
    """Components at another shape."""

    components: dict[str, StoredComponent]


class StoredDowngrade(Stored):
    """A site that is planned in low precision and not executed so."""

    where: str
    key: str
    macs: Count
    why: str


class _Shares(Stored):
    planned_low_precision_mac_share: Number
    executed_low_precision_mac_share: Number
    downgraded: tuple[StoredDowngrade, ...]


class StoredMacs(Stored):
    """Multiply-accumulates of one call of each graph."""

    all: Count
    planned: Count
    planned_products: Count
    executed: Count
    compiled: Count = 0


class StoredPart(Stored):
    """Multiply-accumulates of the operations of one role in one stage of the network.

    Attributes:
        ways: Those of quantized operations, by the way in which they were compiled; empty where they were executed.
    """

    stage: str
    role: str
    macs: Count
    planned: Count
    executed: Count
    ways: dict[Way, Count] = Field(default_factory=dict)


class StoredApart(Stored):
    """An attention that is not fused."""

    name: str
    kernel: str


class StoredEngine(Stored):
    """What one graph was compiled for; see `qdx.backends.compiled.Compiled`. `ways` counts quantized operations."""

    built_by: str
    built_for: str
    size_bytes: Count
    ways: dict[Way, Count]
    attentions: Count
    attentions_fused: Count
    attentions_apart: tuple[StoredApart, ...]
    weights_bytes: Count
    activation_bytes: Count
    scratch_bytes: Count
    layers: dict[str, Count]
    overflowing: tuple[str, ...]


class StoredCompiled(Stored):
    """What the graphs of one component were compiled for, by `component.method`; `way_macs` are those of all of them."""

    way_macs: dict[Way, Count]
    engines: dict[str, StoredEngine]


class StoredComponentAudit(_Shares):
    """What the runtime executes of one component; reports from before there were parts have none.

    Attributes:
        compiled: What it was compiled for, where nothing was executed; null or absent otherwise.
        compiled_low_precision_mac_share: Then the share that was compiled for low precision, of what is planned so.
    """

    macs: StoredMacs
    low_precision_time_share: Number
    parts: tuple[StoredPart, ...] = ()
    compiled_low_precision_mac_share: Number = None
    compiled: StoredCompiled | None = None

    @property
    def planned(self) -> bool:
        """Whether anything is planned in low precision."""
        return self.macs.planned + self.macs.planned_products > 0

    @property
    def share_name(self) -> str:
        """What gates call the share that is as planned."""
        return "executed_share" if self.compiled is None else "compiled_share"

    @property
    def kept_share(self) -> float | None:
        """The share that is as planned: executed so, or compiled so where nothing was executed."""
        if self.compiled is None:
            return self.executed_low_precision_mac_share
        return self.compiled_low_precision_mac_share


class StoredAudit(_Shares):
    """What the runtime executes, or what it was compiled for."""

    of: str
    compiled_low_precision_mac_share: Number = None
    components: dict[str, StoredComponentAudit]


class StoredCoverage(Stored):
    """What calibration has seen."""

    timesteps_share: Number
    branches: str
    guided: bool


class StoredLockstepCall(WithNumbers):
    """One call in lockstep, with the values of the metrics and their medians; `at` is the place of the least SQNR."""

    where: str
    index: Count
    at: str


class StoredSite(Stored):
    """A quantized site and the error that enters there."""

    key: str
    op: str
    role: str
    stage: str = ""
    local_sqnr_db: Number
    cumulative_sqnr_db: Number
    alone_sqnr_db: Number
    share: Number


class StoredLocalization(Stored):
    """Where the error of one call enters."""

    where: str
    call: Count
    enters: str
    first: str | None
    named: tuple[str, ...]
    output_sqnr_db: Number
    sites: tuple[StoredSite, ...]

    @property
    def ranked(self) -> list[StoredSite]:
        """The sites that were measured alone, those with the greatest share first."""
        measured = [site for site in self.sites if site.share is not None]
        return sorted(measured, key=lambda site: -(site.share or 0.0))


class StoredInterval(Stored):
    """A mean over runs and its 95 % interval."""

    mean: Number
    low: Number
    high: Number
    count: Count


class StoredRunMethod(Stored):
    """What the calls of one method came to in one run."""

    made: Count
    error: str
    measured: tuple[ReplayedCall, ...]


class StoredTies(WithNumbers):
    """The reference against itself with noise on its answers; see `qdx.verification.measure.ties.Ties`."""

    sqnr_db: Number
    where: str
    index: Count


class StoredRun(WithNumbers):
    """One run on both sides, with the values of the metrics of the finished pictures."""

    seed: int
    prompts: tuple[str, ...]
    error: str
    sqnr_db: Number
    latent_sqnr_db: Number
    reference_score: Number
    artifact_score: Number
    methods: dict[str, StoredRunMethod]
    ties: StoredTies | None = None

    @property
    def label(self) -> str:
        """`seed 3, prompt "a red circle"`."""
        return run_label(self.seed, self.prompts)


class StoredSamples(Stored):
    """All runs, with an interval of each metric of the finished pictures."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, StoredInterval | None]

    score: str
    latent_sqnr_db: StoredInterval | None
    reference_score: StoredInterval | None
    artifact_score: StoredInterval | None
    score_drop: StoredInterval | None
    worst: str | None
    runs: tuple[StoredRun, ...]

    def interval(self, name: str) -> StoredInterval | None:
        """The interval of a metric; None where no run has it."""
        return self.__pydantic_extra__.get(name)


class StoredOutput(WithNumbers):
    """One output of the pipeline, with the values of the metrics."""

    kind: OutputKind


class StoredPipeline(WithNumbers):
    """What the pipeline made in the first run, with the worst values over its outputs."""

    error: str
    outputs: dict[str, StoredOutput]


class Measurements(Stored):
    """Everything that was measured, and nothing that was made of it.

    Attributes:
        metrics: The metrics that were computed, in the order of tables.
        methods: `component.method` in the order of their first call, which JSON objects do not keep.
        quantized: Those of quantized graphs.
        components: Calls of the first run.
        other_shape: The same at a second shape; null for artifacts of static shapes.
        audit: What the runtime executes; null where nothing was audited.
        coverage: What calibration has seen; null for a bundle that was not calibrated.
        lockstep: Calls of quantized graphs, compared quantizer by quantizer.
        localization: Where the error of the worst call enters; null where nobody asked.
        samples: All runs.
        pipeline: What the first run made.
    """

    metrics: tuple[MetricHead, ...]
    methods: tuple[str, ...]
    quantized: tuple[str, ...]
    components: dict[str, StoredComponent]
    other_shape: StoredComponents | None
    audit: StoredAudit | None
    coverage: StoredCoverage | None
    lockstep: tuple[StoredLockstepCall, ...]
    localization: StoredLocalization | None
    samples: StoredSamples | None
    pipeline: StoredPipeline = Field(repr=False)

    def metrics_of(self, level: Level) -> dict[str, MetricHead]:
        """The metrics that were computed at a level, by name and in order."""
        return {one.name: one for one in self.metrics if level in one.levels}

    def replayed(self) -> Iterator[tuple[str, StoredMethod]]:
        """The methods of the first run by `component.method`, in the order of their first call."""
        yield from self._in_order(self.components)

    def replayed_at_other_shape(self) -> Iterator[tuple[str, StoredMethod]]:
        """The same at the second shape; nothing where there is none."""
        yield from self._in_order({} if self.other_shape is None else self.other_shape.components)

    def audits(self) -> Iterator[tuple[str, StoredComponentAudit]]:
        """The audits by component, in the order of their first call."""
        found = {} if self.audit is None else self.audit.components
        names = (where.partition(".")[0] for where in self.methods)
        for name in dict.fromkeys((*names, *sorted(found))):
            if name in found:
                yield name, found[name]

    def _in_order(
        self, components: dict[str, StoredComponent]
    ) -> Iterator[tuple[str, StoredMethod]]:
        found = {
            f"{component}.{method}": result
            for component, one in components.items()
            for method, result in one.methods.items()
        }
        for where in dict.fromkeys((*self.methods, *sorted(found))):
            if where in found:
                yield where, found[where]
