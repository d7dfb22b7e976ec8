"""The rules of TensorRT, held against a bundle; neither TensorRT nor a device is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qdx.engines.build import method_folders

if TYPE_CHECKING:
    from qdx.backends.tensorrt.lint import Finding
    from qdx.bundle.reader import Bundle

__all__ = ["lint_bundle"]


def lint_bundle(bundle: Bundle) -> dict[str, tuple[Finding, ...]]:
    """Checks every model of a TensorRT bundle for the versions and the devices of its target.

    Returns:
        What was found, by the folder in the bundle: errors before warnings.

    Raises:
        InvalidBundle: A recipe or a model is malformed, or the target is not known here.
        UsageError: The bundle is for another runtime.
    """
    from qdx.backends.tensorrt.engine.produce import lint_file, read_recipe
    from qdx.backends.tensorrt.lint import DeviceFacts
    from qdx.bundle.target_options import checked_options

    folders = method_folders(bundle)
    checked_options(bundle.manifest)
    capability = bundle.manifest.target.profile.compute_capability
    found = {}
    for folder in folders:
        recipe = read_recipe(bundle.path / folder)
        facts = DeviceFacts(recipe.version_range, capability, recipe.refit == "any")
        found[folder] = lint_file(bundle.path / folder / recipe.model, facts)
    return found
