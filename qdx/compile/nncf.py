"""Exports that NNCF quantizes: a backend that hands every float artifact to it, and what it was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from qdx.backends.contract import LoweredFiles
from qdx.backends.openvino.backend import OpenVinoBackend
from qdx.backends.openvino.nncf import quantize_with_nncf
from qdx.backends.openvino.package import nncf
from qdx.calibration.calls import takes
from qdx.exporter.errors import UsageError
from qdx.exporter.plan.schema.scheme import Inputs, Weights

if TYPE_CHECKING:
    from qdx.calibration.calls import Arrays
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import FloatTypes, ResolvedPlan, SiteResolution
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.exporter.plan.schema.settings import Nncf
    from qdx.targets.profile import TargetProfile

__all__ = ["NncfBackend", "check_nncf", "with_nncf"]


def check_nncf(plan: Plan, profile: TargetProfile, ranges: Path | None) -> None:
    """Refuses early what a plan for NNCF lacks; other plans, and targets that refuse it anyway, pass.

    Raises:
        RuntimeMissing: NNCF is not installed.
        UsageError: A file of ranges is given, which NNCF cannot use.
    """
    if plan.quantizer not in profile.quantizers or plan.quantizer != "nncf":
        return
    if ranges is not None:
        raise UsageError(
            "--ranges: quantizer `nncf` takes calls of the components and no ranges",
            hint="leave it out; --calib gives prompts",
        )
    nncf()


class NncfBackend(OpenVinoBackend):
    """OpenVINO with NNCF behind the lowering.

    Args:
        settings: The plan's.
        samples: Inputs by `component.method`, named as the artifact names them; none for mode `weights`.
    """

    def __init__(self, settings: Nncf, samples: Mapping[str, Sequence[Arrays]]) -> None:
        self._settings = settings
        self._samples = samples

    def lower(
        self, graph: Graph, float_types: FloatTypes, profile: TargetProfile, folder: Path
    ) -> LoweredFiles:
        """Writes the float artifact aside and what NNCF makes of it into `folder`.

        Raises:
            StorageError: The disk refused.
            TargetRefusal: NNCF refuses the model or the settings.
        """
        if not takes(self._settings, graph.component):
            return super().lower(graph, float_types, profile, folder)
        with TemporaryDirectory(prefix=".float-", dir=folder) as temporary:
            floats = super().lower(graph, float_types, profile, Path(temporary))
            target = folder / floats.model.name
            quantize_with_nncf(
                floats.model, target, self._settings, self._samples.get(graph.where, ())
            )
            return LoweredFiles(target, tuple(folder / path.name for path in floats.others))

    def versions(self) -> dict[str, str]:
        """OpenVINO's, and NNCF's."""
        return {**super().versions(), "nncf": version("nncf")}


def with_nncf(resolved: ResolvedPlan) -> ResolvedPlan:
    """The resolution with what NNCF was asked for in place of the rules' float types.

    NNCF chooses operations itself: what it is asked for is every convolution and linear operation of its
    components. The audit holds the artifact against that.
    """
    settings = resolved.plan.nncf
    if settings is None:
        return resolved
    sites = {
        where: tuple(_asked(one, settings) for one in found)
        if takes(settings, where.partition(".")[0])
        else found
        for where, found in resolved.sites.items()
    }
    return replace(resolved, sites=sites)


def _asked(resolution: SiteResolution, settings: Nncf) -> SiteResolution:
    site = resolution.site
    if site.weight is None or "input" not in site.ports:
        return resolution
    why = f"asked of NNCF, mode {settings.mode}"
    if settings.mode == "weights" or (settings.mode == "hybrid" and not _is_convolution(site)):
        weights = _compressed(settings)
        return replace(
            resolution, weights=weights, stored_dtype=weights.dtype, form="stored", why=why
        )
    symmetric = settings.preset == "performance"
    return replace(
        resolution,
        weights=Weights(dtype="int8"),
        inputs=Inputs(dtype="int8", symmetric=symmetric),
        stored_dtype="int8",
        form="native",
        why=why,
    )


def _is_convolution(site: Site) -> bool:
    return site.op.startswith("conv")


def _compressed(settings: Nncf) -> Weights:
    symmetric = settings.weights.endswith("_sym")
    if settings.weights.startswith("int8"):
        return Weights(dtype="int8" if symmetric else "uint8", symmetric=symmetric)
    dtype: Any = "int4" if symmetric else "uint4"
    if settings.group_size == -1:
        return Weights(dtype=dtype, symmetric=symmetric)
    return Weights(dtype=dtype, symmetric=symmetric, granularity="block", block=settings.group_size)
