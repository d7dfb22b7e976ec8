"""NNCF as an `ArtifactQuantizer`: what a plan's settings of it take, and what they ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qdx.backends.contract import LoweredFiles
from qdx.backends.openvino.nncf.quantize import quantize_with_nncf
from qdx.backends.openvino.package import nncf
from qdx.exporter.plan.schema.rule import matches
from qdx.exporter.plan.schema.scheme import Inputs, Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qdx.exporter.graph.ir.site import Site
    from qdx.exporter.plan.resolve.resolution import ResolvedPlan, SiteResolution
    from qdx.exporter.plan.schema.settings import Nncf

__all__ = ["NncfQuantizer"]

_CALLS_MOST: Final = 300
"""As many as NNCF itself takes of a data set by default."""


class NncfQuantizer:
    """NNCF with the settings of a plan; see `qdx.backends.capabilities.ArtifactQuantizer`.

    Args:
        settings: The plan's.
    """

    name = "NNCF"

    def __init__(self, settings: Nncf) -> None:
        self._settings = settings
        self.calls_most = 0 if settings.mode == "weights" else _CALLS_MOST

    def takes(self, component: str) -> bool:
        """By the glob of the settings."""
        return matches(component, (self._settings.components,))

    def asked(self, resolved: ResolvedPlan) -> ResolvedPlan:
        """Every convolution and linear operation of its components: NNCF chooses operations itself."""
        sites = {
            where: tuple(_asked(one, self._settings) for one in found)
            if self.takes(where.partition(".")[0])
            else found
            for where, found in resolved.sites.items()
        }
        return replace(resolved, sites=sites)

    def quantize(
        self, floats: LoweredFiles, calls: Sequence[Mapping[str, NDArray[Any]]], folder: Path
    ) -> LoweredFiles:
        """Writes what NNCF makes of an IR."""
        target = folder / floats.model.name
        quantize_with_nncf(floats.model, target, self._settings, calls)
        return LoweredFiles(target, tuple(folder / path.name for path in floats.others))

    def check_installed(self) -> None:
        """Imports it."""
        nncf()

    def versions(self) -> dict[str, str]:
        """NNCF's."""
        return {"nncf": version("nncf")}


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
