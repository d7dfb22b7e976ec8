"""How well gradients stand for measured noise: rank correlations over the groups of an analysis. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from qdx.analyze.gradient_data import Correlation
from qdx.analyze.ranks import spearman

if TYPE_CHECKING:
    from qdx.analyze.analysis import Analysis, Group
    from qdx.analyze.gradient_data import Estimate, FisherNoise, GroupGradient

__all__ = ["correlations"]

_MEASURES: Final = ("prediction", "guidance")


def correlations(
    analysis: Analysis, groups: Sequence[GroupGradient], fisher: Sequence[FisherNoise]
) -> Iterator[Correlation]:
    """Rank correlations of what gradients say with what was measured.

    Args:
        analysis: With the noise of single options.
        groups: Sensitivities.
        fisher: What the Fisher information says.
    """
    by_group = {one.group: one for one in groups}
    quantizing = [
        one.id for one in analysis.options if one.weights is not None and one.inputs is None
    ]
    for measure in _MEASURES:
        rows = [
            (one, by_group[one.group], analysis.groups[one.group], noise)
            for one in fisher
            for noise in (getattr(analysis.single[one.group, one.option], measure),)
            if noise is not None
        ]
        for option in [*sorted({one.option for one in fisher}), None]:
            wanted = quantizing if option is None else [option]
            own = [row for row in rows if row[0].option in wanted]
            noises = [noise for *_, noise in own]
            for name, values in _estimates(own).items():
                if option is None and name == "sensitivity":
                    continue  # it is the same for every option
                found = spearman(values, noises)
                if found is not None:
                    yield Correlation(
                        of=name, measure=measure, option=option, spearman=found, pairs=len(own)
                    )


def _estimates(
    rows: Sequence[tuple[FisherNoise, GroupGradient, Group, float]],
) -> dict[Estimate, list[float]]:
    found: dict[Estimate, list[float]] = {
        "sensitivity": [one.sensitivity for _, one, _, _ in rows],
        "sensitivity_change": [
            one.sensitivity / max(1, group.weight_elements) * noise.change
            for noise, one, group, _ in rows
        ],
        "fisher": [noise.value for noise, *_ in rows],
    }
    if rows and all(one.trace is not None for _, one, _, _ in rows):
        found["trace_change"] = [
            (one.trace or 0.0) / max(1, group.weight_elements) * noise.change
            for noise, one, group, _ in rows
        ]
    return found
