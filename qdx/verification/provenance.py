"""What a verification rests on: what ran the artifact, what that proves, and the versions of all that took part."""

from __future__ import annotations

import platform
from dataclasses import replace
from typing import TYPE_CHECKING

from qdx.backends.registry import get_backend
from qdx.cache.facts import versions_of
from qdx.runtime.caution import caution_of

if TYPE_CHECKING:
    from qdx.backends.contract import Proof
    from qdx.bundle.reader import Bundle

__all__ = ["proof_of", "versions_for"]


def proof_of(bundle: Bundle) -> Proof:
    """What the runs prove, of all artifacts together."""
    components = bundle.manifest.components.values()
    opened = dict.fromkeys(m.opened for one in components for m in one.methods.values())
    backend = get_backend(bundle.manifest.target.runtime)
    proof = backend.proof([bundle.path / path for path in opened])
    profile = bundle.manifest.target.profile
    device = profile.proved_on
    on_it = proof.compute_capability is not None and (
        proof.compute_capability == profile.compute_capability
    )
    if device is not None and not on_it and proof.status == "device-verified":
        proof = replace(proof, status="artifact-verified", unproved=f"what {device} makes of it")
    return replace(proof, caution=caution_of(bundle))


def versions_for(runtime: str) -> dict[str, str]:
    """Versions of everything that takes part with a runtime."""
    found = versions_of("diffusers", "numpy", "torch", "torchmetrics", "transformers")
    return {"python": platform.python_version(), **found, **get_backend(runtime).versions()}
