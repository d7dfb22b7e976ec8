"""What was measured, as the data of an analysis."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from qdx.analyze.analysis import (
    FLOAT_OPTION,
    MEASURES,
    Analysis,
    AnalyzedModel,
    AnalyzedTarget,
    Branch,
    Group,
    MeanNoise,
    MeasuredCall,
    Noise,
    Offered,
    Option,
    PlanBase,
    Sampling,
)
from qdx.analyze.folder import digest_of_noise, mean_of, noise_file
from qdx.analyze.plan_digest import plan_digest
from qdx.analyze.stored_bytes import StoredBytes
from qdx.analyze.whole import errors_of_outcome
from qdx.backends.registry import get_backend
from qdx.cache.facts import computing_versions, images_digest
from qdx.exporter.capture.recorded_call import record_call
from qdx.exporter.plan.resolve.resolution import SiteResolution
from qdx.exporter.plan.resolve.totals import branch_macs
from qdx.exporter.strict_json import dump_json

if TYPE_CHECKING:
    from qdx.analyze.calls import RecordedInputs, Runs
    from qdx.analyze.folder import NoiseByCall
    from qdx.analyze.groups import Bound
    from qdx.analyze.offerings import Offering
    from qdx.analyze.survey import Survey
    from qdx.exporter.plan.resolve.feasibility import Support
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.source.pipeline import TracedPipeline
    from qdx.source.planned import PlannedGraphs
    from qdx.sweep.results import Outcome
    from qdx.targets.profile import TargetProfile

__all__ = ["Findings", "analysis_of", "groups_of"]

_STEPS: Final = "num_inference_steps"
_BY_WORTH: Final = ("native", "decomposed", "stored", "float", "simulated", "refused")
_BRANCHES: Final[tuple[Branch, ...]] = ("unconditional", "conditional")
_CARRIED_OUT: Final = frozenset({"native", "decomposed"})


@dataclass(frozen=True)
class Findings:
    """All that an analysis rests on, without the numbers; see `analyze`."""

    source: TracedPipeline
    profile: TargetProfile
    planned: PlannedGraphs
    base: Plan
    offered: Sequence[Offering]
    bound: Mapping[str, Sequence[Bound]]
    recorded: Sequence[RecordedInputs]
    runs: Runs
    prompts: Sequence[str] | None


def analysis_of(
    findings: Findings, survey: Survey, results: Mapping[str, Outcome]
) -> tuple[Analysis, NoiseByCall]:
    """The data of an analysis, and its numbers by call."""
    groups, places = groups_of(findings)
    calls, rows = _calls(findings, survey, results)
    arrays = _arrays(findings, survey, results, rows)
    arrays |= _errors(findings, survey, results)
    source, settings = findings.source, findings.base.calibration
    steps = findings.runs.call.get(_STEPS)
    analysis = Analysis(
        schema="qdx.analysis/1",
        versions={name: str(one) for name, one in computing_versions().items()},
        model=AnalyzedModel(
            pipeline_class=source.folder.pipeline_class,
            files=dict(sorted(source.identity.items())),
            setup=tuple(dict(step) for step in source.folder.setup),
        ),
        target=AnalyzedTarget(
            name=findings.profile.name, profile=_digest(findings.profile.model_dump(mode="json"))
        ),
        plan_base=PlanBase(name=findings.base.name or "", plan=plan_digest(findings.base)),
        sampling=Sampling(
            call=record_call(findings.runs.call),
            images=images_digest(findings.runs.call),
            prompts=None if findings.prompts is None else _digest(list(findings.prompts)),
            samples=settings.samples,
            steps=steps if isinstance(steps, int) else None,
            seed=settings.seed,
        ),
        options=(
            Option(id=FLOAT_OPTION, label="float", weights=None, inputs=None),
            *(one.option for one in findings.offered),
        ),
        groups=groups,
        calls=calls,
        noise=_noise(findings, arrays, calls, places),
    )
    return analysis, arrays


def groups_of(findings: Findings) -> tuple[tuple[Group, ...], dict[tuple[str, int], int]]:
    """The groups, and the number of each by graph and place there."""
    by_id = {one.option.id: one for one in findings.offered}
    found: list[Group] = []
    places: dict[tuple[str, int], int] = {}
    for where, bound in findings.bound.items():
        floats = {one.key: one for one in findings.offered[0].floats[where]}
        stored = _stored(findings, where)
        for place, one in enumerate(bound):
            places[where, place] = len(found)
            first = one.sites[0]
            own = {site.weight: site.weight_elements for site in one.sites if site.weight}
            found.append(
                Group(
                    id=len(found),
                    where=where,
                    sites=tuple(site.key for site in one.sites),
                    bound_by=one.why,
                    op=first.op,
                    roles=tuple(dict.fromkeys(site.role for site in one.sites)),
                    stage=first.stage,
                    weight_elements=sum(own.values()),
                    macs=sum(site.macs for site in one.sites),
                    offers=(
                        _offered(
                            stored, FLOAT_OPTION, [floats[site.key] for site in one.sites], ()
                        ),
                        *(
                            _offered(
                                stored,
                                option,
                                [by_id[option].sites[where, s.key].resolution for s in one.sites],
                                [by_id[option].sites[where, s.key].slower for s in one.sites],
                            )
                            for option in one.options
                        ),
                    ),
                )
            )
    return tuple(found), places


def _stored(findings: Findings, where: str) -> StoredBytes:
    component, resolved = where.partition(".")[0], findings.planned.resolved
    (own,) = (one for one in resolved.components if one.component == component)
    backend = get_backend(findings.profile.runtime)
    graph = findings.planned.graphs[where]
    return StoredBytes(graph, resolved.float_types(component), own.computes, backend)


def _offered(
    stored: StoredBytes,
    option: int,
    resolutions: Sequence[SiteResolution],
    slower: Sequence[str | None],
) -> Offered:
    form: Support = max((one.form for one in resolutions), key=_BY_WORTH.index)
    reasons = list(dict.fromkeys(slower))
    return Offered(
        option=option,
        form=form,
        bytes=stored.of(resolutions),
        macs_low=sum(
            one.site.macs for one in resolutions if one.segments and one.form in _CARRIED_OUT
        ),
        macs_beside=sum(map(branch_macs, resolutions)),
        slower=None if not reasons or None in reasons else "; ".join(map(str, reasons)),
    )


def _calls(
    findings: Findings, survey: Survey, results: Mapping[str, Outcome]
) -> tuple[tuple[MeasuredCall, ...], dict[int, list[int]]]:
    """The measured calls, and of each step the places of its own among those of its graph."""
    found: list[MeasuredCall] = []
    rows: dict[int, list[int]] = {}
    for place, recorded in enumerate(findings.recorded):
        moment = recorded.moment
        values = next(
            (results[job.key].numbers for job in survey.every if job.recorded == place),
            (math.nan,) * (len(MEASURES) * len(moment.calls)),
        )
        before = sum(call.where == moment.where for call in found)
        rows[place] = [before + number for number in range(len(moment.calls))]
        base = len(found)
        for number, call in enumerate(moment.calls):
            row = values[number * len(MEASURES) : (number + 1) * len(MEASURES)]
            branch = _branch(dict(zip(MEASURES, row, strict=True)))
            found.append(
                MeasuredCall(
                    where=moment.where,
                    sample=moment.sample,
                    call=call,
                    step=moment.step,
                    timestep=moment.timestep,
                    prompt=findings.runs.prompt_index(moment.sample),
                    branch=branch,
                    other=base + 1 - number if branch not in {None, "both"} else None,
                    weight=moment.weight / len(moment.calls),
                )
            )
    return tuple(found), rows


def _branch(row: Mapping[str, float]) -> Branch | None:
    there = tuple(name for name in _BRANCHES if not math.isnan(row[name]))
    return "both" if there == _BRANCHES else there[0] if there else None


def _arrays(
    findings: Findings,
    survey: Survey,
    results: Mapping[str, Outcome],
    rows: Mapping[int, Sequence[int]],
) -> dict[str, torch.Tensor]:
    options, measures = len(findings.offered) + 1, len(MEASURES)
    arrays: dict[str, torch.Tensor] = {}
    for where, bound in findings.bound.items():
        calls = sum(len(r.moment.calls) for r in findings.recorded if r.moment.where == where)
        shape = (options, calls, measures)
        arrays[f"single.{where}"] = torch.full((len(bound), *shape), math.nan, dtype=torch.float64)
        arrays[f"cumulative.{where}"] = torch.full(shape, math.nan, dtype=torch.float64)
    for job in survey.every:
        where = findings.recorded[job.recorded].moment.where
        found = torch.tensor(results[job.key].numbers, dtype=torch.float64).reshape(-1, measures)
        array = arrays[f"{'cumulative' if job.group is None else 'single'}.{where}"]
        target = array if job.group is None else array[job.group]
        for row, place in zip(found, rows[job.recorded], strict=True):
            target[job.option, place] = row
    return arrays


def _errors(
    findings: Findings, survey: Survey, results: Mapping[str, Outcome]
) -> dict[str, torch.Tensor]:
    """Errors of single options, all calls side by side; see `analysis`."""
    arrays: dict[str, torch.Tensor] = {}
    columns: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for where, bound in findings.bound.items():
        own = [p for p, r in enumerate(findings.recorded) if r.moment.where == where]
        for place in own:
            first = next(job for job in survey.every if job.recorded == place)
            columns[place] = errors_of_outcome(survey, place, results[first.key])
        for kind, name in enumerate(("errors", "guidance_errors")):
            width = sum(columns[place][kind].numel() for place in own)
            shape = (len(bound), len(findings.offered) + 1, width)
            arrays[f"{name}.{where}"] = torch.full(shape, math.nan)
    ends = _ends(findings, columns)
    for job in survey.every:
        if job.group is None:
            continue
        where = findings.recorded[job.recorded].moment.where
        found = errors_of_outcome(survey, job.recorded, results[job.key])
        for kind, name in enumerate(("errors", "guidance_errors")):
            span = ends[job.recorded][kind]
            arrays[f"{name}.{where}"][job.group, job.option, span] = found[kind]
    return arrays


def _ends(
    findings: Findings, columns: Mapping[int, tuple[torch.Tensor, torch.Tensor]]
) -> dict[int, tuple[slice, slice]]:
    """Where the errors of each moment stand among those of its graph."""
    found: dict[int, tuple[slice, slice]] = {}
    reached: dict[tuple[str, int], int] = {}
    for place, recorded in enumerate(findings.recorded):
        spans = []
        for kind, errors in enumerate(columns[place]):
            start = reached.get((recorded.moment.where, kind), 0)
            reached[recorded.moment.where, kind] = end = start + errors.numel()
            spans.append(slice(start, end))
        found[place] = spans[0], spans[1]
    return found


def _noise(
    findings: Findings,
    arrays: NoiseByCall,
    calls: Sequence[MeasuredCall],
    places: Mapping[tuple[str, int], int],
) -> Noise:
    single, cumulative = [], []
    for where, bound in findings.bound.items():
        weights = torch.tensor(
            [one.weight for one in calls if one.where == where], dtype=torch.float64
        )
        for place, one in enumerate(bound):
            for option in one.options:
                values = arrays[f"single.{where}"][place, option]
                single.append(_mean(where, places[where, place], option, values, weights))
        for option in sorted({option for one in bound for option in one.options}):
            values = arrays[f"cumulative.{where}"][option]
            cumulative.append(_mean(where, None, option, values, weights))
    return Noise(
        sha256=digest_of_noise(noise_file(arrays)),
        measures=MEASURES,
        single=tuple(single),
        cumulative=tuple(cumulative),
    )


def _mean(
    where: str, group: int | None, option: int, values: torch.Tensor, weights: torch.Tensor
) -> MeanNoise:
    means = {name: mean_of(values[:, place], weights) for place, name in enumerate(MEASURES)}
    return MeanNoise(where=where, group=group, option=option, **means)


def _digest(value: Any) -> str:
    return hashlib.sha256(dump_json(value)).hexdigest()
