"""What a plan became in a bundle, as `qdx.json` records it: schemes and reasons once each, and which of them every site has.

A verification reads it instead of resolving again: neither another qdx nor another target file changes what a bundle is
held against.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from qdx.exporter.errors import InvalidBundle, quoted
from qdx.exporter.plan.resolve.feasibility import Support
from qdx.exporter.plan.resolve.resolution import Resolution, ResolvedPlan, SiteResolution
from qdx.exporter.plan.resolve.settle import Chosen
from qdx.exporter.plan.schema.gates import Gates
from qdx.exporter.plan.schema.scheme import AskedInputs, AskedWeights, Inputs, Weights

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.schema.plan import Plan

__all__ = ["ChosenRecord", "OutcomeRecord", "ResolvedRecord", "record_of", "restored"]

_OUTCOMES_LIMIT: Final = 10_000
_SITES_LIMIT: Final = 100_000
_GROUPS_LIMIT: Final = 100
_CHOSEN_LIMIT: Final = 1000
"""Of one operation: two for each rule that may decide its inputs, and those of its weight."""

_Words = Annotated[str, Field(max_length=20_000)]
_Index = Annotated[int, Field(ge=0, lt=_OUTCOMES_LIMIT)]
_Key = Annotated[str, Field(min_length=1, max_length=512)]
_Item = TypeVar("_Item")


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class ChosenRecord(_Record):
    """See `Chosen`."""

    name: _Words
    value: str | bool | int | float
    by: _Words
    why: _Words


class SegmentRecord(_Record):
    """The scheme of inputs in some groups of timesteps.

    Attributes:
        groups: From, and to but without; None for all.
        scheme: How they are quantized.
    """

    groups: tuple[_Index, _Index] | None = None
    scheme: Inputs


class OutcomeRecord(_Record):
    """What becomes of the sites that have it; see `SiteResolution`.

    Attributes:
        chosen: Indices of `ResolvedRecord.chosen`.
    """

    asked_weights: AskedWeights | None = None
    asked_inputs: AskedInputs | None = None
    weights_rule: _Words
    inputs_rule: _Words
    weights: Weights | None = None
    inputs: Annotated[tuple[SegmentRecord, ...], Field(max_length=_GROUPS_LIMIT)] = ()
    stored_dtype: _Words
    scale_dtype: _Words
    form: Support
    why: _Words
    chosen: Annotated[tuple[_Index, ...], Field(max_length=_CHOSEN_LIMIT)] = ()


class ResolvedRecord(_Record):
    """What a plan became, beside the float types of components.

    Attributes:
        gates: With every bound said.
        mixed_precision: See `ResolvedPlan`.
        plan: Of the values that a plan may leave unsaid, indices of those of the whole plan.
        chosen: All such values, each once, and who chose them.
        outcomes: What sites became, each once.
        sites: Of every graph by `component.method`, the index of the outcome by the site's key.
    """

    gates: Gates
    mixed_precision: bool
    plan: Annotated[tuple[_Index, ...], Field(max_length=_GROUPS_LIMIT)]
    chosen: Annotated[tuple[ChosenRecord, ...], Field(max_length=_OUTCOMES_LIMIT)]
    outcomes: Annotated[tuple[OutcomeRecord, ...], Field(max_length=_OUTCOMES_LIMIT)]
    sites: Mapping[_Key, Annotated[Mapping[_Key, _Index], Field(max_length=_SITES_LIMIT)]]

    @model_validator(mode="after")
    def _indices_are_known(self) -> ResolvedRecord:
        chosen = [*self.plan, *(index for outcome in self.outcomes for index in outcome.chosen)]
        if max(chosen, default=-1) >= len(self.chosen):
            raise ValueError(f"index {max(chosen)} of {len(self.chosen)} in `chosen`")
        outcomes = [index for graph in self.sites.values() for index in graph.values()]
        if max(outcomes, default=-1) >= len(self.outcomes):
            raise ValueError(f"index {max(outcomes)} of {len(self.outcomes)} in `outcomes`")
        return self


def record_of(resolved: ResolvedPlan) -> dict[str, Any]:
    """Returns what a plan became as plain JSON data, for a manifest."""
    every = [site for graph in resolved.sites.values() for site in graph]
    chosen = _numbered([*resolved.chosen, *(one for site in every for one in site.chosen)])
    found = {
        where: {site.key: _outcome(site, chosen) for site in graph}
        for where, graph in resolved.sites.items()
    }
    outcomes = _numbered(one for graph in found.values() for one in graph.values())
    record = ResolvedRecord(
        gates=resolved.gates,
        mixed_precision=resolved.mixed_precision,
        plan=tuple(chosen[one] for one in resolved.chosen),
        chosen=tuple(ChosenRecord(**asdict(one)) for one in chosen),
        outcomes=tuple(outcomes),
        sites={
            where: {key: outcomes[one] for key, one in graph.items()}
            for where, graph in found.items()
        },
    )
    return record.model_dump(mode="json", exclude_none=True)


def restored(
    record: ResolvedRecord,
    plan: Plan,
    target: str,
    components: Iterable[Resolution],
    sites: Mapping[str, Sequence[Site]],
) -> ResolvedPlan:
    """Returns what a plan became when its bundle was made.

    Args:
        record: As the bundle has it.
        plan: The bundle's.
        target: Its target's name.
        components: What became of its components.
        sites: Of its graphs by `component.method`, traced again.

    Raises:
        InvalidBundle: A site is not recorded.
    """
    chosen = [Chosen(one.name, one.value, one.by, one.why) for one in record.chosen]
    components = tuple(components)
    stored = {one.component: one.becomes for one in components}
    found = {
        where: tuple(
            replace(
                _resolution(record, chosen, where, site),
                float_dtype=stored[where.partition(".")[0]],
            )
            for site in graph
        )
        for where, graph in sites.items()
    }
    return ResolvedPlan(
        plan,
        target,
        components,
        record.gates,
        record.mixed_precision,
        tuple(chosen[index] for index in record.plan),
        found,
    )


def _numbered(items: Iterable[_Item]) -> dict[_Item, int]:
    """Different items in order of first appearance, with their numbers."""
    found: dict[_Item, int] = {}
    for item in items:
        found.setdefault(item, len(found))
    return found


def _outcome(site: SiteResolution, chosen: Mapping[Chosen, int]) -> OutcomeRecord:
    return OutcomeRecord(
        asked_weights=site.asked_weights,
        asked_inputs=site.asked_inputs,
        weights_rule=site.weights_rule,
        inputs_rule=site.inputs_rule,
        weights=site.weights,
        inputs=tuple(
            SegmentRecord(
                groups=None if groups is None else (groups.start, groups.stop), scheme=scheme
            )
            for groups, scheme in site.segments
        ),
        stored_dtype=site.stored_dtype,
        scale_dtype=site.scale_dtype,
        form=site.form,
        why=site.why,
        chosen=tuple(chosen[one] for one in site.chosen),
    )


def _resolution(
    record: ResolvedRecord, chosen: Sequence[Chosen], where: str, site: Site
) -> SiteResolution:
    index = record.sites.get(where, {}).get(site.key)
    if index is None:
        raise InvalidBundle(
            f"`resolved.sites`: has no {quoted(f'{where}.{site.key}')}, an operation of the traced graph",
            hint="export again; another version of torch may trace the model differently",
        )
    outcome = record.outcomes[index]
    inputs = tuple(
        (range(*segment.groups), segment.scheme)
        for segment in outcome.inputs
        if segment.groups is not None
    )
    whole = next((each.scheme for each in outcome.inputs if each.groups is None), None)
    return SiteResolution(
        where=where,
        site=site,
        asked_weights=outcome.asked_weights,
        asked_inputs=outcome.asked_inputs,
        weights_rule=outcome.weights_rule,
        inputs_rule=outcome.inputs_rule,
        weights=outcome.weights,
        inputs=inputs or whole,
        stored_dtype=outcome.stored_dtype,
        form=outcome.form,
        why=outcome.why,
        scale_dtype=outcome.scale_dtype,
        chosen=tuple(chosen[number] for number in outcome.chosen),
    )
