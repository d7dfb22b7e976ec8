"""Localization: at which sites the error of quantization enters, measured on one recorded call.

First each site is computed as quantized from float inputs, which gives the error that it makes by itself. Those
with the largest are then quantized one at a time in an otherwise float model, which shows how much of the error
reaches the output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import torch

from qdx.exporter.measure import metrics
from qdx.exporter.measure.mixed_run import Pair, Walk
from qdx.exporter.progress import SILENT
from qdx.verification.measure.rungs import sqnr_of

if TYPE_CHECKING:
    from torch import Tensor

    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.progress import Progress
    from qdx.exporter.transforms.recipe import Recipe

__all__ = ["Answered", "Localization", "SiteError", "localize", "stage_of"]

Stage = Literal["quantization", "lowering"]

# Sites that are quantized alone: each costs one run of the model.
_CANDIDATES: Final = 12
# The named sites are those that make this share of the error at the output, and no more than so many.
_SHARE_NAMED: Final = 0.95
_NAMED: Final = 5
_TWICE_DB: Final = 3.01


@dataclass(frozen=True)
class SiteError:
    """One quantized site.

    Attributes:
        key: The site.
        op: Its operation.
        role: What it is for.
        stage: Where it stands, such as `down.0`; empty outside of all stages.
        local_sqnr_db: Of its result, when its inputs are those of the float model.
        cumulative_sqnr_db: Of its result in the quantized model, against the float model.
        alone_sqnr_db: Of the model's output, when this site alone is quantized; None where not measured.
        share: Part of the error at the output that it makes among all sites measured alone, 0 to 1;
            None where not measured.
    """

    key: str
    op: str
    role: str
    stage: str
    local_sqnr_db: float
    cumulative_sqnr_db: float
    alone_sqnr_db: float | None = None
    share: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The site as plain JSON data; what is not a number becomes null."""
        numbers = {
            "local_sqnr_db": self.local_sqnr_db,
            "cumulative_sqnr_db": self.cumulative_sqnr_db,
            "alone_sqnr_db": self.alone_sqnr_db,
            "share": self.share,
        }
        return {
            "key": self.key,
            "op": self.op,
            "role": self.role,
            "stage": self.stage,
            **{n: metrics.finite_or_none(v) for n, v in numbers.items()},
        }


@dataclass(frozen=True)
class Localization:
    """Where the error of one call enters.

    Attributes:
        where: `unet.forward`.
        index: Position of the call among those of the method.
        enters: `lowering` where the artifact has more than twice the noise of the quantized graph.
        sites: In order of execution.
        output_sqnr_db: Of the quantized model's output.
    """

    where: str
    index: int
    enters: Stage
    sites: tuple[SiteError, ...]
    output_sqnr_db: float

    @property
    def ranked(self) -> tuple[SiteError, ...]:
        """The sites measured alone, by the error at the output that they make, the greatest first."""
        measured = [site for site in self.sites if site.share is not None]
        return tuple(sorted(measured, key=lambda site: -(site.share or 0.0)))

    @property
    def named(self) -> tuple[SiteError, ...]:
        """The few sites that make most of the error, the greatest first."""
        found: list[SiteError] = []
        total = 0.0
        for site in self.ranked[:_NAMED]:
            if total >= _SHARE_NAMED:
                break
            found.append(site)
            total += site.share or 0.0
        return tuple(found)

    @property
    def first(self) -> SiteError | None:
        """Of the named sites the first in order of execution; None without any."""
        names = {site.key for site in self.named}
        return next((site for site in self.sites if site.key in names), None)

    def to_json(self) -> dict[str, Any]:
        """The localization as plain JSON data."""
        return {
            "where": self.where,
            "call": self.index,
            "enters": self.enters,
            "first": None if self.first is None else self.first.key,
            "named": [site.key for site in self.named],
            "output_sqnr_db": metrics.finite_or_none(self.output_sqnr_db),
            "sites": [site.to_json() for site in self.sites],
        }


@dataclass(frozen=True)
class Answered:
    """What an artifact answered to a call.

    Attributes:
        sqnr_db: The least over its outputs, against float.
        outputs: Their names; it may have fewer than the graph.
    """

    sqnr_db: float
    outputs: frozenset[str]


def localize(
    base: Graph,
    quantized: Graph,
    recipe: Recipe,
    inputs: Mapping[str, Tensor],
    *,
    index: int = 0,
    answered: Answered | None = None,
    candidates: int = _CANDIDATES,
    progress: Progress = SILENT,
) -> Localization:
    """Measures every quantized site of a graph on one call.

    Args:
        base: The float graph in the form that was quantized; see `qdx.exporter.transforms.recipe.prepared`.
        quantized: Its quantized graph.
        recipe: What led from one to the other.
        inputs: Of the call, with the dtypes and shapes that the graph declares.
        index: Of the call, for the report.
        answered: What the artifact answered; None where nobody asked it.
        candidates: How many sites are quantized alone, those with the largest error of their own first.
        progress: Told of every run.
    """
    pair = Pair(base, quantized, recipe)
    alone = min(candidates, len(pair.sites))
    with progress.task("localizing", alone + 1) as task:
        sites, reference, output = _survey(pair, inputs)
        task.advance(1)
        worst = sorted(sites.values(), key=lambda site: metrics.or_least(site.local_sqnr_db))
        noise: dict[str, float] = {}
        for site in worst[:alone]:
            decibels = sqnr_of(reference, Walk(pair, inputs, {site.key}).run())
            sites[site.key] = replace(site, alone_sqnr_db=decibels)
            noise[site.key] = _relative_noise(decibels)
            task.advance(1)
    total = sum(noise.values())
    for key, part in noise.items():
        share = part / total if total > 0 else 0.0
        sites[key] = replace(sites[key], share=share)
    enters: Stage = "quantization"
    if answered is not None:
        asked = {name: reference[name] for name in answered.outputs}
        enters = stage_of(sqnr_of(asked, output), answered.sqnr_db)
    found = tuple(sites.values())
    return Localization(base.where, index, enters, found, sqnr_of(reference, output))


def stage_of(quantized_sqnr_db: float, artifact_sqnr_db: float) -> Stage:
    """Which step makes more of the artifact's error.

    The artifact against the quantized graph would not tell: where activations are rounded, the last bits of a
    sum decide some roundings, and over many layers two right computations differ as much as either differs
    from float. So lowering counts where it adds more noise than quantization has made.

    Args:
        quantized_sqnr_db: Of the quantized graph against float.
        artifact_sqnr_db: Of the artifact against float.
    """
    return "quantization" if artifact_sqnr_db >= quantized_sqnr_db - _TWICE_DB else "lowering"


def _survey(
    pair: Pair, inputs: Mapping[str, Tensor]
) -> tuple[dict[str, SiteError], dict[str, Tensor], dict[str, Tensor]]:
    """Local and cumulative errors in one pass, and the outputs of both models."""
    found: dict[str, SiteError] = {}
    reference = Walk(pair, inputs, frozenset())
    quantized = Walk(pair, inputs, pair.sites.keys())
    with torch.no_grad():
        for node in pair.nodes.values():
            if node.op == "output":
                continue
            one, other = reference.step(node), quantized.step(node)
            key = pair.key_of.get(node.name)
            if key is not None:
                site = pair.sites[key]
                local = metrics.sqnr_db(one, reference.as_quantized(key))
                found[key] = SiteError(
                    key, site.op, site.role, site.stage, local, metrics.sqnr_db(one, other)
                )
            reference.drop(node)
            quantized.drop(node)
    return found, reference.finish(), quantized.finish()


def _relative_noise(decibels: float) -> float:
    return 1.0 if math.isnan(decibels) else float(10 ** (-decibels / 10))
