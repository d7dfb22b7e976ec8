"""Short tables of what an analysis found."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from qdx.analyze.latency_table import TRUSTED
from qdx.analyze.trajectory_data import Missing
from qdx.cli.output import size, table

if TYPE_CHECKING:
    from qdx.analyze.ablation_data import Ablation
    from qdx.analyze.analysis import Analysis, MeanNoise
    from qdx.analyze.gradient_data import Gradients
    from qdx.analyze.latency_table import LatencyTable
    from qdx.analyze.trajectory_data import Trajectory

__all__ = ["tables_of"]

_SHOWN: Final = 6
"""Parts left float that are shown of the noisiest option; all are in the file."""


def tables_of(analysis: Analysis) -> str:
    """For each graph and option what it costs and does as a whole, and which groups it hurts most."""
    parts = []
    for where in analysis.wheres:
        rows = []
        for option in analysis.options[1:]:
            whole = analysis.cumulative.get((where, option.id))
            if whole is None:
                continue
            groups = [one for one in analysis.groups_of(where) if option.id in one.options]
            single = [(_noise(analysis.single[one.id, option.id]), one) for one in groups]
            single.sort(key=lambda pair: (-pair[0], pair[1].id))
            held = sum(one.offered(option.id).bytes for one in groups)
            floats = sum(one.offers[0].bytes for one in groups)
            rows.append(
                (
                    option.label,
                    str(len(groups)),
                    f"{size(floats)} to {size(held)}",
                    _decibels(whole.prediction),
                    _decibels(whole.guidance),
                    ", ".join(f"{one.sites[0]} {_in_db(noise)}" for noise, one in single[:1]),
                )
            )
        columns = (
            "option",
            "groups",
            "weights",
            "all of them, dB",
            "guidance, dB",
            "worst alone, dB",
        )
        parts.append(f"{where}\n{table(columns, rows)}")
    if analysis.latency is not None:
        parts += [_times(analysis, one) for one in analysis.latency.graphs]
    parts += _further(analysis)
    return "\n\n".join(parts)


def _further(analysis: Analysis) -> Iterator[str]:
    """Gradients, errors over whole runs, and parts left float, as far as there are any."""
    if analysis.gradients is not None:
        yield _gradients(analysis, analysis.gradients)
    if isinstance(analysis.trajectory, Missing):
        yield f"errors are not followed over runs: {analysis.trajectory.why_not}"
    elif analysis.trajectory is not None:
        yield _trajectory(analysis.trajectory)
    if analysis.ablations is not None and analysis.ablations.rows:
        yield _ablations(analysis, analysis.ablations.rows)


def _gradients(analysis: Analysis, found: Gradients) -> str:
    labels = {one.id: one.label for one in analysis.options}
    rows: dict[str, dict[str, str]] = {}
    for one in found.correlations:
        if one.measure == "prediction":
            option = "all of weights alone" if one.option is None else labels[one.option]
            rows.setdefault(option, {})[one.of] = f"{one.spearman:.2f}"
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    words = "rank correlation of gradients with measured noise"
    cells = [(option, *(row.get(name, "-") for name in names)) for option, row in rows.items()]
    return f"{words}\n{table(('option', *(name.replace('_', ' x ') for name in names)), cells)}"


def _trajectory(found: Trajectory) -> str:
    rows = []
    for one in found.options:
        worst = min(
            (s for s in one.segments if s.picture.latents_sqnr_db is not None),
            key=lambda s: s.picture.latents_sqnr_db or 0.0,
            default=None,
        )
        rows.append(
            (
                one.label,
                _number(one.norm_ratio, ".2f"),
                _number(one.correlation, ".3f"),
                _number(one.picture.latents_sqnr_db, ".1f"),
                _number(one.picture.psnr_db, ".1f"),
                _number(one.picture.ssim, ".3f"),
                "-" if worst is None else f"{worst.steps[0]}-{worst.steps[1] - 1}",
            )
        )
    columns = ("option everywhere", "told / real error", "correlation", "latents, dB", "PSNR, dB", "SSIM", "worst steps")  # fmt: skip
    words = f"whole runs with {found.sampler}, {found.runs} of them"
    gains = [one.gain for one in found.gains]
    strongest = max(found.gains, key=lambda one: one.gain)
    told = (
        f"a unit error of a prediction moves the final latents by {min(gains):.2g} to {max(gains):.2g}, "
        f"most in step {strongest.step}"
    )
    return f"{words}\n{table(columns, rows)}\n{told}"


def _ablations(analysis: Analysis, rows: tuple[Ablation, ...]) -> str:
    noise = {
        one: sum(r.prediction or 0.0 for r in analysis.noise.cumulative if r.option == one)
        for one in {row.option for row in rows}
    }
    option = max(sorted(noise), key=noise.__getitem__)
    own = [row for row in rows if row.option == option]
    shown = [
        (
            f"{row.kind} {row.part}",
            _number(row.prediction_db, "+.1f"),
            _number(row.latents_db, "+.1f"),
            _number(row.psnr_db, "+.1f"),
            size(row.more_bytes) if row.kind != "segment" else "-",
            _slower(analysis, row),
        )
        for row in own[:_SHOWN]
    ]
    columns = (
        "left float",
        "prediction, dB",
        "latents, dB",
        "PSNR, dB",
        "more bytes",
        "slower by, ms",
    )
    label = next(one.label for one in analysis.options if one.id == option)
    return (
        f"{label} everywhere but for one part, {len(shown)} of {len(own)}\n{table(columns, shown)}"
    )


def _slower(analysis: Analysis, row: Ablation) -> str:
    """How much longer a call takes with the part in float; a dash where times are not known."""
    groups = [] if row.kind == "segment" else [analysis.groups[one] for one in row.groups]
    pairs = [(one.offers[0].latency_ms, one.offered(row.option).latency_ms) for one in groups]
    if not pairs or any(one is None or other is None for one, other in pairs):
        return "-"
    return f"{sum((one or 0.0) - (other or 0.0) for one, other in pairs):+.3g}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _times(analysis: Analysis, one: LatencyTable) -> str:
    """What a graph takes where all that can has one option, and how far off the sum of its operations is."""
    if one.source == "declared":
        rows = [(o.label, f"{one.everywhere_ms(o.id):.3g}") for o in analysis.options]
        found = table(("option everywhere", "ms"), rows)
        return f"{one.where}: declared by what is said of {one.device}, not measured\n{found}"
    floats = next(whole.ms for whole in one.whole if whole.option == 0)
    labels = {option.id: option.label for option in analysis.options}
    measured = [
        (
            labels[whole.option],
            f"{whole.ms:.4g}",
            f"{floats / whole.ms:.2f}",
            f"{whole.clock_ms:.4g}",
        )
        for whole in one.whole
    ]
    found = table(("option everywhere", "ms", "times as fast", "sum of operations, ms"), measured)
    machine = one.machine
    assert machine is not None
    threads = "the runtime's own number of" if machine.threads is None else str(machine.threads)
    words = [f"{one.where}: measured, {machine.clock} time, {threads} threads", found]
    if (off := one.farthest_off) is not None:
        words.append(f"options drawn at random: predicted within {off:.0%} of what was measured")
        if off > TRUSTED:
            words.append("budgets of latency are no more certain than that")
    return "\n".join(words)


def _noise(row: MeanNoise) -> float:
    return math.inf if row.prediction is None else row.prediction


def _decibels(noise: float | None) -> str:
    return "-" if noise is None else _in_db(noise)


def _in_db(noise: float) -> str:
    return "exact" if noise == 0 else "-" if math.isinf(noise) else f"{-10 * math.log10(noise):.1f}"
