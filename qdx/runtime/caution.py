"""What this machine computes worse than others that a bundle is for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qdx.backends.capabilities import Saturates
from qdx.backends.registry import get_backend
from qdx.bundle.recipes import recipes_of

if TYPE_CHECKING:
    from qdx.bundle.reader import Bundle
    from qdx.exporter.transforms.placement import SitePlacement

__all__ = ["caution_of"]

_EIGHT_BITS: Final = frozenset({"int8", "uint8"})


def caution_of(bundle: Bundle) -> str:
    """A warning, where the bundle multiplies 8-bit numbers whose sums saturate on this processor; else nothing."""
    runtime = bundle.manifest.target.runtime
    if not _is_at_risk(bundle):
        return ""
    backend = get_backend(runtime)
    if not isinstance(backend, Saturates) or not backend.saturates():
        return ""
    return (
        f"the 8-bit kernels of {runtime} saturate on this processor, as on all of x86 without VNNI, and figures are lower "
        "than on others; weights of 7 bits (`reduce_range` in the plan) avoid it in convolutions and linear layers"
    )


def _is_at_risk(bundle: Bundle) -> bool:
    """Whether anything multiplies two 8-bit numbers of full range."""
    if bundle.manifest.plan.get("quantizer", "qdx") != "qdx":
        return True  # what somebody else's quantizer made is on no record of ours
    recipes = recipes_of(bundle).values()
    return any(_multiplies_full_range(site) for one in recipes for site in one.placement.sites)


def _multiplies_full_range(site: SitePlacement) -> bool:
    if site.weight is None:  # a product of activations has two quantized inputs
        return len(site.inputs) > 1
    return bool(site.inputs) and site.weight.dtype in _EIGHT_BITS and not site.weight.reduce_range
