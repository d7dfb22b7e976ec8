"""What a target offers each operation: schemes of weights and inputs that plans can ask for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from qdx.analyze.analysis import FLOAT_OPTION, Option
from qdx.exporter.dtypes import INPUT_DTYPES, number_type
from qdx.exporter.errors import InvalidPlan, TargetRefusal, UsageError, quoted
from qdx.exporter.formats.registry import format_of, quantized_dtypes
from qdx.exporter.model_faults import choices
from qdx.exporter.plan.resolve.faster import compared_macs
from qdx.exporter.plan.resolve.feasibility import Offer, PlanTarget, Request
from qdx.exporter.plan.resolve.negotiate import Negotiation, Wish
from qdx.exporter.plan.resolve.resolve import examine
from qdx.exporter.plan.schema.plan import Plan
from qdx.exporter.plan.schema.rule import Rule, Select
from qdx.exporter.plan.schema.scheme import AskedInputs, AskedWeights, Inputs, Weights

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan, SiteResolution
    from qdx.exporter.plan.schema.choices import Choices
    from qdx.source.pipeline import TracedPipeline
    from qdx.source.planned import PlannedGraphs
    from qdx.targets.profile import TargetProfile

__all__ = [
    "Offering",
    "SiteOffer",
    "candidates",
    "offering",
    "offerings",
    "parse_option",
    "plan_asking",
]

_OFFERED: Final = frozenset({"native", "decomposed", "stored"})
"""What a target carries out; the values of what it simulates it would compute in a wider type."""
_FEW_BITS: Final = 8
"""Below so many, the range of least error is finer than the one that holds every value."""
_CANDIDATES: Final = (
    "int8",
    "int4",
    "int4:block32",
    "int4:block128",
    "palette8",
    "palette6",
    "palette4",
    "palette3",
    "palette2",
    "palette1",
    "nvfp4",
    "mxfp8",
    "int8/int8",
    "int8/int8:token",
    "int4/int8",
    "float8_e4m3fn/float8_e4m3fn",
    "nvfp4/nvfp4",
    "mxfp8/mxfp8",
    "/int8",
    "/float8_e4m3fn",
)
"""What is asked of every operation; a target takes what it has kernels for."""
_PART: Final = re.compile(r"([a-z0-9_]+)(?::([a-z]+)([0-9]*))?", re.ASCII)
_FACTOR: Final = re.compile(r"([^*]*)\*([0-9]{1,2}(?:\.[0-9]{1,4})?)", re.ASCII)
_WRITTEN: Final = (
    "WEIGHTS[:SHARED][*FACTOR][/INPUTS[:SHARED]], such as int4:block32, int3*1.2 or int8/int8:token"
)


@dataclass(frozen=True)
class SiteOffer:
    """What a target makes of an option of one operation.

    Attributes:
        resolution: What becomes of the operation.
        slower: Why it is no faster than float; None where it is, or where nobody says so.
    """

    resolution: SiteResolution
    slower: str | None

    @property
    def scheme(self) -> tuple[object, object]:
        """What is really carried out, by which options that come to the same are told."""
        return self.resolution.weights, self.resolution.inputs


@dataclass(frozen=True)
class Offering:
    """An option and all operations that can take it.

    Attributes:
        option: The option.
        plan: Asks it of every operation.
        resolved: What becomes of that where all operations stay float that cannot take it.
        sites: By graph and key, those that can.
        floats: By graph, every operation as it is where it stays float.
    """

    option: Option
    plan: Plan
    resolved: ResolvedPlan
    sites: Mapping[tuple[str, str], SiteOffer]
    floats: Mapping[str, Sequence[SiteResolution]] = field(repr=False)


def parse_option(text: str, *, simulated: bool = True) -> Option:
    """Reads an option as the command line has it.

    >>> parse_option("int4:block32").label
    'int4 block 32'

    Args:
        text: Types of weights and of inputs, and what shares a scale or a table: `int3`, `int4:block32`, `palette4:group16`,
            `int8/int8:token`; `/int8` for operations without weights. `int3*1.2` has the range that int3 chooses for each
            channel, times 1.2.
        simulated: See `Option`.

    Raises:
        UsageError: It is none.
    """
    weights_text, _, inputs_text = text.partition("/")
    weights = _weights(text, weights_text) if weights_text else None
    inputs = _inputs(text, inputs_text) if inputs_text else None
    if weights is None and inputs is None:
        raise _unreadable(text, "names no type")
    parts = [] if weights is None else [_weights_label(weights)]
    parts += [] if inputs is None else [_inputs_label(inputs)]
    label = " / ".join(parts) if weights is not None else f"inputs {parts[0]}"
    return Option(id=0, label=label, weights=weights, inputs=inputs, simulated=simulated)


def candidates(asked: Sequence[str] | None) -> tuple[Option, ...]:
    """The options that are tried, without float: those asked for, or all that some target may offer.

    Raises:
        UsageError: One is not readable, or comes twice.
    """
    if asked is None:
        return tuple(parse_option(text, simulated=False) for text in _CANDIDATES)
    found: dict[str, Option] = {}
    for text in asked:
        option = parse_option(text.strip())
        if option.label in found:
            raise UsageError(f"--options: {quoted(text)} comes twice")
        found[option.label] = option
    return tuple(found.values())


def offerings(
    source: TracedPipeline,
    planned: PlannedGraphs,
    profile: TargetProfile,
    options: Iterable[Option],
    wheres: Sequence[str],
) -> tuple[Offering, ...]:
    """What the target offers the operations of some graphs, without options that nothing can take.

    Args:
        source: The pipeline.
        planned: Its graphs, and the plan upon which options are asked.
        profile: The target.
        options: Without float.
        wheres: The graphs, by `component.method`.

    Returns:
        With options numbered from 1 on.
    """
    found: list[Offering] = []
    seen: dict[tuple[str, str], list[tuple[object, object]]] = {}
    for option in options:
        one = offering(source, planned, profile, option, wheres)
        if one is None:
            continue
        fresh = {}
        for place, offer in one.sites.items():
            schemes = seen.setdefault(place, [])
            if offer.scheme not in schemes:
                schemes.append(offer.scheme)
                fresh[place] = offer
        if fresh:
            numbered = option.model_copy(update={"id": FLOAT_OPTION + 1 + len(found)})
            resolved = _only(one.resolved, fresh)
            found.append(replace(one, option=numbered, resolved=resolved, sites=fresh))
    return tuple(found)


def plan_asking(
    base: Plan,
    option: Option,
    components: Iterable[str],
    ops: Sequence[str],
    edges: Sequence[float] = (),
) -> Plan:
    """The plan that asks an option of all operations of some kinds.

    Args:
        base: Whose options, calibration and float types it has.
        option: What is asked.
        components: Of the operations.
        ops: Their kinds.
        edges: Fractions of the schedule, from 0 to 1, between which inputs have ranges of their own; none for one range.
    """
    components = tuple(components)
    floats = tuple(rule for rule in base.rules if rule.select.by_component and _keeps_float(rule))
    asking = Rule(
        id="option",
        select=Select(component=components, op=tuple(ops)),
        weights=option.weights,
        inputs=option.inputs,
        when="always",
    )
    timed = tuple(
        Rule(
            id=f"option.{number}",
            select=Select(component=components, op=tuple(ops), timesteps=span),
            inputs=option.inputs,
            when="always",
        )
        for number, span in enumerate(pairwise(edges))
    )
    return Plan(
        schema="qdx.plan/1",
        rules=(*floats, asking, *timed),
        options=base.options,
        calibration=base.calibration,
        gates=base.gates,
    )


def _keeps_float(rule: Rule) -> bool:
    asked = rule.asked_weights
    return asked is not None and not asked.quantized and not rule.quantizes


def offering(
    source: TracedPipeline,
    planned: PlannedGraphs,
    profile: TargetProfile,
    option: Option,
    wheres: Sequence[str],
    edges: Sequence[float] = (),
) -> Offering | None:
    """What the target makes of one option; None where no operation could take it on any target.

    Args:
        source: The pipeline.
        planned: Its graphs, and the plan upon which the option is asked.
        profile: The target.
        option: The option.
        wheres: The graphs, by `component.method`.
        edges: See `plan_asking`.
    """
    sites = {where: planned.sites[where] for where in wheres}
    able = {
        (where, site.key): site
        for where, found in sites.items()
        for site in found
        if _can_take(site, option)
    }
    if not able:
        return None
    components = dict.fromkeys(where.partition(".")[0] for where, _ in able)
    ops = dict.fromkeys(site.op for site in able.values())
    plan = plan_asking(planned.resolved.plan, option, components, list(ops), edges)
    target: PlanTarget = _Willing(profile) if option.simulated else profile
    try:
        resolved = examine(
            plan,
            source.skeleton.modules,
            target,
            planned.sites,
            source.captured.kinds,
            upcast=source.upcast,
        ).resolved
    except (InvalidPlan, TargetRefusal):
        return None  # it asks for nothing here
    forms = _OFFERED | {"simulated"} if option.simulated else _OFFERED
    offers = {
        (where, one.key): SiteOffer(one, _slower(one, resolved, target, sites[where]))
        for where in wheres
        for one in resolved.sites[where]
        if (where, one.key) in able and one.form in forms and _is_taken(one, option)
    }
    floats = _only(resolved, {}).sites
    return Offering(option, plan, _only(resolved, offers), offers, floats)


def _can_take(site: Site, option: Option) -> bool:
    """Whether an operation has what an option is about; residual additions follow the products that they meet."""
    if site.is_residual:
        return False
    weighted = site.weight is not None
    return weighted == (option.weights is not None) and (option.inputs is None or bool(site.ports))


def _is_taken(resolution: SiteResolution, option: Option) -> bool:
    """Whether all of an option was taken, and not a part of it."""
    weights = option.weights is None or resolution.quantized_weights is not None
    return weights and (option.inputs is None) == (not resolution.segments)


def _only(resolved: ResolvedPlan, taken: Mapping[tuple[str, str], SiteOffer]) -> ResolvedPlan:
    """A resolution in which all other operations stay float."""
    return replace(
        resolved,
        sites={
            where: tuple(
                one if (where, one.key) in taken else _as_float(one, resolved, where)
                for one in found
            )
            for where, found in resolved.sites.items()
        },
    )


def _as_float(one: SiteResolution, resolved: ResolvedPlan, where: str) -> SiteResolution:
    storage = resolved.storage_dtype(where.partition(".")[0])
    if one.weights is None:
        return replace(one, inputs=None, form="float")
    return replace(
        one, weights=Weights(dtype=storage), inputs=None, stored_dtype=storage, form="float"
    )


def _slower(
    one: SiteResolution, resolved: ResolvedPlan, target: PlanTarget, sites: Sequence[Site]
) -> str | None:
    """Why what was taken is no faster than float."""
    component = one.where.partition(".")[0]
    schemes = [scheme for _, scheme in one.segments] or [Inputs(dtype="float32")]
    negotiation = Negotiation(
        one.site,
        resolved.storage_dtype(component),
        target,
        compared_macs(sites)[one.key],
        resolved.mixed_precision,
    )
    return negotiation.outcome(Wish(one.weights, schemes, one.inputs)).offer.slower


@dataclass(frozen=True)
class _Willing:
    """A target that simulates weights that it does not store, of operations that it has in low precision at all.

    What it would do to the numbers can then be measured.
    """

    profile: TargetProfile

    @property
    def name(self) -> str:
        return self.profile.name

    @property
    def storage_dtypes(self) -> tuple[str, ...]:
        return self.profile.storage_dtypes

    @property
    def compute_dtype(self) -> str:
        return self.profile.compute_dtype

    @property
    def refused(self) -> Mapping[str, str]:
        return self.profile.refused

    @property
    def refused_options(self) -> Mapping[str, str]:
        return self.profile.refused_options

    @property
    def quantizers(self) -> tuple[str, ...]:
        return self.profile.quantizers

    @property
    def choices(self) -> Choices:
        return self.profile.choices

    def offer(self, request: Request) -> Offer:
        found = self.profile.offer(request)
        block = None if request.weights is None else request.weights.block
        known = any(request.op in kernel.op for kernel in self.profile.kernels)
        stored = request.inputs is None and not (block and request.reduced % block)
        if found.form != "refused" or not known or not stored:
            return found
        return Offer("simulated", f"no artifact: {found.why}")


def _weights(text: str, part: str) -> AskedWeights:
    factor = _FACTOR.fullmatch(part)
    dtype, shared, number = _read(text, part if factor is None else factor[1])
    if dtype not in quantized_dtypes():
        raise _unreadable(text, f"{quoted(dtype)} is not a type of weights", quantized_dtypes())
    found: dict[str, object] = {"dtype": dtype}
    fixed = bool(number_type(dtype).block)
    is_table = dtype.startswith("palette")
    match shared, bool(number):
        case "", False:
            if not fixed:
                found["granularity"] = "tensor" if is_table else "channel"
        case (("tensor" | "channel"), False):
            found["granularity"] = shared
        case "block", True:
            found |= {"granularity": "block", "block": int(number)}
        case "group", True:
            found |= {"granularity": "grouped_channel", "group": int(number)}
        case _:
            raise _unreadable(text, f"{quoted(part)} says nothing that shares a scale")
    if not fixed and not is_table and not number_type(dtype).is_float:
        few = number_type(dtype).bits < _FEW_BITS
        found |= {"symmetric": True, "observer": "mse" if few else "minmax"}
    if factor is not None:
        found["range_factor"] = float(factor[2])
    try:
        asked = AskedWeights.model_validate(found)
    except ValidationError as bad:
        raise _unreadable(text, bad.errors()[0]["msg"]) from None
    fault = next(format_of(dtype).faults(asked, set(found) - {"dtype"}), None)
    if fault is not None:
        raise _unreadable(text, fault.words)
    return asked


def _inputs(text: str, part: str) -> AskedInputs:
    dtype, shared, number = _read(text, part)
    known = tuple(one for one in INPUT_DTYPES if one != "float32")
    if dtype not in known:
        raise _unreadable(text, f"{quoted(dtype)} is not a type of inputs", known)
    if number_type(dtype).block:
        return AskedInputs(dtype=dtype, granularity="block", mode="dynamic")
    match shared, bool(number):
        case (("" | "tensor"), False):
            return AskedInputs(dtype=dtype, observer="minmax" if "float" in dtype else "mse")
        case "token", False:
            return AskedInputs(dtype=dtype, granularity="token", mode="dynamic")
        case "groups", True:
            return AskedInputs(dtype=dtype, observer="mse", timestep_groups=int(number))
        case _:
            raise _unreadable(text, f"{quoted(part)} says nothing that shares a scale")


def _read(text: str, part: str) -> tuple[str, str, str]:
    match = _PART.fullmatch(part)
    if match is None:
        raise _unreadable(text, f"{quoted(part)} cannot be read")
    return match[1], match[2] or "", match[3] or ""


def _unreadable(text: str, why: str, known: Sequence[str] = ()) -> UsageError:
    hint = f"the types are {choices(known)}" if known else f"write {_WRITTEN}"
    return UsageError(f"--options: {quoted(text)}: {why}", hint=hint)


def _inputs_label(asked: AskedInputs) -> str:
    groups = asked.timestep_groups
    return f"{asked.dtype} {asked.granularity}{f' in {groups} groups' if groups > 1 else ''}"


def _weights_label(asked: AskedWeights) -> str:
    return " ".join(_label_parts(asked))


def _label_parts(asked: AskedWeights) -> Iterator[str]:
    yield asked.dtype
    if asked.group is not None:
        yield f"group {asked.group}"
    elif asked.granularity is not None:
        yield asked.granularity
    if asked.block is not None:
        yield str(asked.block)
    if asked.range_factor != 1:
        yield f"x{asked.range_factor:g}"
