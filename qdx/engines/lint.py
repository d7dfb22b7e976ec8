"""The rules of a runtime, held against a bundle; neither the runtime nor a device is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qdx.backends.capabilities import Checks, lacks
from qdx.backends.registry import find_backend
from qdx.bundle.target_options import checked_options
from qdx.engines.build import method_folders
from qdx.exporter.errors import quoted

if TYPE_CHECKING:
    from qdx.backends.capabilities import Finding
    from qdx.bundle.reader import Bundle

__all__ = ["lint_bundle"]


def lint_bundle(bundle: Bundle) -> dict[str, tuple[Finding, ...]]:
    """Checks every model of a bundle for the versions and the devices of its target.

    Returns:
        What was found, by the folder in the bundle: errors before warnings.

    Raises:
        InvalidBundle: A recipe or a model is malformed, or the target is not known here.
        UsageError: The bundle's backend has no such rules.
    """
    target = bundle.manifest.target
    backend = find_backend(target.runtime)
    if not isinstance(backend, Checks):
        raise lacks(backend, Checks, quoted(bundle.path))
    checked_options(bundle.manifest)
    return {
        folder: backend.check(bundle.path / folder, target.profile)
        for folder in method_folders(bundle)
    }
