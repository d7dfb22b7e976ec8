"""The measures of a verification by the names of gates, one value for each run: what two verifications are compared by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from qdx.exporter.measure.metrics import METRICS, worst_of
from qdx.exporter.plan.schema.gates import Gates
from qdx.verification.judge.scales import SCALES, Scale
from qdx.verification.stored.baseline import ScaleName
from qdx.verification.stored.measurements import (
    Measurements,
    MetricHead,
    ReplayedCall,
    StoredPipeline,
    StoredRun,
)
from qdx.verification.stored.values import as_float

__all__ = ["Measure", "compared_measures", "measures_of"]


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes:
        name: As gates are named: `unet.sqnr_db`, `pipeline.ssim`.
        scale_name: On which scale it is compared.
        values: Of each run; of the first alone where others do not measure it. NaN for what is no number.
    """

    name: str
    scale_name: ScaleName
    values: tuple[float, ...]

    @property
    def scale(self) -> Scale:
        """On which it is compared."""
        return SCALES[self.scale_name]


def measures_of(found: Measurements) -> dict[str, Measure]:
    """All measures by name, in the order of gates.

    Args:
        found: What was measured.
    """
    other = [(where, one.measured) for where, one in found.replayed_at_other_shape()]
    every = (
        *_components("", found, _runs(found)),
        *_components("other_shape.", found, [other]),
        *_lowering(found),
        *_conditioning(found),
        *_executed(found),
        *_pipeline(found),
    )
    return {measure.name: measure for measure in every}


def compared_measures(found: Measurements, contract: Gates) -> dict[str, Measure]:
    """The measures that a regression is looked for in: one of each error, and whatever else the contract bounds.

    The metrics of a component's output tell one error in several ways; a contract says which of them matter.

    Args:
        found: What was measured.
        contract: Bounds.
    """
    named = {"sqnr_db"} | {metric.name for metric, _ in contract.component.bounds}
    if contract.lowering is not None:
        named |= {metric.name for metric, _ in contract.lowering.bounds}
    return {
        name: measure
        for name, measure in measures_of(found).items()
        if (metric := name.rpartition(".")[2]) in named
        or metric not in METRICS
        or name.startswith("pipeline.")
    }


_Calls = list[tuple[str, tuple[ReplayedCall, ...]]]
"""The compared calls of every method in one run."""


def _runs(found: Measurements) -> list[_Calls]:
    runs = found.samples.runs if found.samples is not None else ()
    first = [(where, one.measured) for where, one in found.replayed()]
    later = [[(where, one.measured) for where, one in run.methods.items()] for run in runs[1:]]
    return [first, *later]


def _components(prefix: str, found: Measurements, runs: list[_Calls]) -> Iterator[Measure]:
    """The worst call of every component in each run."""
    for name in dict.fromkeys(where.partition(".")[0] for where, _ in runs[0]):
        own = [
            [call for where, calls in run if where.partition(".")[0] == name for call in calls]
            for run in runs
        ]
        for metric in found.metrics_of("component").values():
            values = tuple(
                _worst(metric, (call.value(metric.name) for call in calls)) for calls in own
            )
            yield Measure(f"{prefix}{name}.{metric.name}", _scale_of(metric), values)


def _lowering(found: Measurements) -> Iterator[Measure]:
    for where in sorted(found.quantized):
        calls = [call for call in found.lockstep if call.where == where]
        for metric in found.metrics_of("lowering").values():
            value = _worst(metric, (call.value(metric.name) for call in calls))
            yield Measure(f"{where}.lowering.{metric.name}", _scale_of(metric), (value,))


def _conditioning(found: Measurements) -> Iterator[Measure]:
    for where, method in found.replayed():
        strength = method.conditioning
        if strength is None or not strength.applicable:
            continue
        name = f"{where}.conditioning"
        least, greatest = as_float(strength.ratio_min), as_float(strength.ratio_max)
        yield Measure(f"{name}.ratio_min", "least_strength", (least,))
        yield Measure(f"{name}.ratio_max", "greatest_strength", (greatest,))


def _executed(found: Measurements) -> Iterator[Measure]:
    for name, audit in found.audits():
        if audit.planned:
            share = as_float(audit.kept_share)
            yield Measure(f"{name}.audit.{audit.share_name}", "share", (share,))
    if found.coverage is not None:
        share = as_float(found.coverage.timesteps_share)
        yield Measure("coverage.timesteps_share", "share", (share,))


def _pipeline(found: Measurements) -> Iterator[Measure]:
    samples, pipeline = found.samples, found.pipeline
    runs: tuple[StoredRun | StoredPipeline, ...] = (
        samples.runs if samples is not None and samples.runs else (pipeline,)
    )
    kinds = {output.kind for output in pipeline.outputs.values()}
    for metric in found.metrics_of("pipeline").values():
        known = METRICS.get(metric.name)
        if kinds and known is not None and not known.kinds.intersection(kinds):
            continue
        scale = _scale_of(metric)
        if scale == "decibels" and kinds == {"pictures"}:
            scale = "picture_decibels"
        values = tuple(as_float(run.value(metric.name)) for run in runs)
        yield Measure(f"pipeline.{metric.name}", scale, values)
    if samples is not None and samples.score:
        drops = tuple(
            as_float(one.reference_score) - as_float(one.artifact_score) for one in samples.runs
        )
        yield Measure("pipeline.score_drop", "score_drop", drops)


def _worst(metric: MetricHead, values: Iterable[float | None]) -> float:
    return worst_of(map(as_float, values), min if metric.better == "more" else max)


def _scale_of(metric: MetricHead) -> ScaleName:
    if metric.unit == "dB":
        return "decibels"
    return "similarity" if metric.better == "more" else "error"
