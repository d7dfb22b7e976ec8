"""Plans in words: schemes, rules and gates as a person reads them."""

from __future__ import annotations

import textwrap
from itertools import groupby
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qdx.exporter.plan import AskedGates, AskedInputs, AskedWeights, Plan, Rule, SiteResolution
    from qdx.exporter.plan.resolve.untraced import Quantizing
    from qdx.exporter.plan.schema.metric_gates import MetricGates
    from qdx.exporter.plan.schema.settings import Smoothing

__all__ = [
    "deciding_rules",
    "gate_words",
    "groups_words",
    "inputs_words",
    "labelled",
    "options_words",
    "quantizing_words",
    "rules_words",
    "segments_words",
    "span_words",
    "tune_words",
    "weights_words",
]

_WIDTH: Final = 100


def weights_words(scheme: AskedWeights | None) -> str:
    """Returns a scheme of weights in a few words, such as `int4 block 32` or `palette4 group 16, int8`; what is unsaid is left out."""
    if scheme is None:
        return "-"
    if not scheme.quantized:
        return scheme.dtype
    shared = f"group {scheme.group}" if scheme.group else scheme.granularity
    marks = [
        f"block {scheme.block}" if scheme.block else shared,
        scheme.lut_dtype or "",
        "asymmetric" * (scheme.symmetric is False),
        "7 bits" * scheme.reduce_range,
        "" if scheme.range_factor == 1 else f"range times {scheme.range_factor:g}",
        "" if scheme.rounding == "nearest" else f"rounding {scheme.rounding}",
        "" if scheme.low_rank is None else f"low rank {scheme.low_rank.rank}",
        "" if scheme.rotate is None else f"rotated by {scheme.rotate.block or 'a power of two'}",
    ]
    return f"{scheme.dtype} {', '.join(filter(None, marks))}".strip()


def inputs_words(scheme: AskedInputs) -> str:
    """Returns a scheme of inputs in a few words, such as `int8 token`."""
    if not scheme.quantized:
        return scheme.dtype
    return f"{scheme.dtype} {scheme.granularity}{', asymmetric' * (scheme.symmetric is False)}"


def segments_words(segments: Sequence[tuple[range | None, AskedInputs]]) -> str:
    """Returns the schemes of inputs with their groups of timesteps, such as `int4 tensor at groups 0-2 (noisiest); int8 tensor at groups 3-9`; `-` for none."""
    runs = [
        (words, [groups for groups, _ in run if groups is not None])
        for words, run in groupby(segments, key=lambda one: inputs_words(one[1]))
    ]
    parts = []
    for words, groups in runs:
        scales = f", {len(groups)} scales by timestep" if len(groups) > 1 else ""
        noisiest = " (noisiest)" if groups and groups[0].start == 0 else ""
        at = f" at {groups_words(groups)}{noisiest}" if len(runs) > 1 else ""
        parts.append(f"{words}{scales}{at}")
    return "; ".join(parts) or "-"


def groups_words(runs: Sequence[range]) -> str:
    """Returns groups of timesteps as people name them, such as `groups 0-2`; neighbouring runs are joined."""
    joined: list[range] = []
    for run in runs:
        if joined and joined[-1].stop == run.start:
            joined[-1] = range(joined[-1].start, run.stop)
        else:
            joined.append(run)
    names = [span_words(run) for run in joined]
    noun = "groups" if sum(map(len, joined)) > 1 else "group"
    return f"{noun} {' and '.join(names)}"


def span_words(groups: range) -> str:
    """Returns consecutive groups by number: `0-2`, or `4` for one."""
    last = groups.stop - 1
    return f"{groups.start}" if groups.start == last else f"{groups.start}-{last}"


def deciding_rules(resolution: SiteResolution) -> str:
    """Returns the rules that decided for an operation, each once and in order, such as `attn-8, then noisy at groups 0-2`."""
    words: dict[str, str] = {}
    for name, groups in resolution.inputs_rules:
        # The first holds wherever no later one does.
        runs = [range(group, group + 1) for group in groups]
        words[name] = f"then {name} at {groups_words(runs)}" if words else name
    if resolution.weights_rule:
        words = {resolution.weights_rule: resolution.weights_rule} | words
    return ", ".join(words.values()) or "-"


def labelled(label: str, text: str, width: int) -> str:
    """Returns a text behind a label of some width, in lines of at most 100 characters where it can."""
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=f"{label.ljust(width)}  ",
        subsequent_indent=" " * (width + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )


def rules_words(plan: Plan) -> str:
    """Returns the rules in order: what each selects, asks and why."""
    return "\n\n".join(
        "\n".join([rule.id or f"rules[{index}]", *_rule_lines(rule)])
        for index, rule in enumerate(plan.rules)
    )


def quantizing_words(rules: Sequence[Quantizing]) -> str:
    """Returns the rules that may quantize operations of a component, such as `w8a8, attention (if it is a denoiser)`; `-` for none."""
    words = []
    for kinds, same in groupby(rules, key=lambda one: one.kinds):
        names = ", ".join(one.rule for one in same)
        words.append(f"{names} (if it is a {' or '.join(kinds)})" if kinds else names)
    return ", ".join(words) or "-"


def options_words(plan: Plan) -> str:
    """Returns the options that a plan sets, such as `mixed_precision, smoothing (alpha 0.5)`; empty for none."""
    return ", ".join(_option(name, getattr(plan.options, name)) for name in plan.options.changed)


def tune_words(plan: Plan) -> str:
    """Returns what a plan lets learn, such as `distil, role attn.*: 1000 steps of 4 calls out of 128`; empty for nothing."""
    from qdx.exporter.plan.schema.rule import SITE_KEYS

    tune = plan.tune
    if tune is None:
        return ""
    select = tune.select
    globs = {key: getattr(select, key) for key in SITE_KEYS} if select is not None else {}
    chosen = [f"{key} {' or '.join(found)}" for key, found in globs.items() if found is not None]
    if select is not None and "*" not in select.component:
        chosen.insert(0, f"components {', '.join(select.component)}")
    how = f"{tune.steps} steps of {tune.batch} calls out of {tune.calls}"
    rank = "" if tune.rank is None else f", updates of rank {tune.rank}"
    return f"{', '.join([tune.method, *chosen])}: {how}{rank}"


def _option(name: str, value: bool | str | Smoothing) -> str:
    if isinstance(value, bool):
        return name if value else f"no {name}"
    return f"{name} ({value if isinstance(value, str) else f'alpha {value.alpha:g}'})"


def _rule_lines(rule: Rule) -> Iterator[str]:
    from qdx.exporter.plan.schema.rule import SITE_KEYS

    rows = [("components", ", ".join(rule.select.component))]
    if rule.select.kind is not None:
        rows.append(("kind", " or ".join(rule.select.kind)))
    for key in SITE_KEYS:
        globs = getattr(rule.select, key)
        if globs is not None:
            rows.append((key, " or ".join(globs)))
    if rule.select.timesteps is not None:
        rows.append(("timesteps", "{:g} to {:g}".format(*rule.select.timesteps)))
    if rule.asked_weights is not None:
        rows.append(("weights", weights_words(rule.asked_weights)))
    if rule.asked_inputs is not None:
        rows.append(("inputs", _asked_inputs(rule.asked_inputs)))
    if rule.when is not None:
        rows.append(("when", rule.when))
    if rule.why is not None:
        rows.append(("why", rule.why))
    for label, text in rows:
        yield labelled(f"  {label}", text, 12)


def _asked_inputs(scheme: AskedInputs) -> str:
    if not scheme.quantized:
        return scheme.dtype
    observed = f"{scheme.observer} {scheme.percentile or ''}".strip()
    marks = ["dynamic"] if scheme.mode == "dynamic" else []
    marks += [f"range by {observed}"] if scheme.calibrated else []
    if scheme.timestep_groups > 1:
        marks.append(f"{scheme.timestep_groups} groups of timesteps")
    return ", ".join([inputs_words(scheme), *marks])


def gate_words(gates: AskedGates) -> Iterator[tuple[str, str]]:
    """Yields each bound of the gates by name."""
    yield from _bounds("component", gates.component)
    yield from _bounds("pipeline", gates.pipeline)
    if gates.pipeline.score_drop_max is not None:
        yield "pipeline score drop", f"at most {gates.pipeline.score_drop_max:g}"
    if gates.lowering is not None:
        yield from _bounds("lowering", gates.lowering)
    if gates.conditioning is not None:
        bounds = gates.conditioning
        yield "conditioning ratio", f"{bounds.ratio_min:g} to {bounds.ratio_max:g}"
    if gates.audit is not None:
        yield "executed share", f"at least {gates.audit.executed_share_min:g}"
    if gates.coverage is not None:
        yield "timesteps share", f"at least {gates.coverage.timesteps_share_min:g}"
        yield "guidance branches", gates.coverage.branches


def _bounds(level: str, gates: MetricGates) -> Iterator[tuple[str, str]]:
    from qdx.exporter.plan.schema.gates import AskedComponentGates, AskedLoweringGates

    if isinstance(gates, AskedComponentGates | AskedLoweringGates) and gates.sqnr_db_min is None:
        yield f"{level} sqnr_db", "as the target has it"
    for metric, bound in gates.bounds:
        sense = "at least" if metric.better == "more" else "at most"
        yield f"{level} {metric.name}", f"{sense} {bound:g}"
