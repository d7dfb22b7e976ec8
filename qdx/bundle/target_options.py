"""The options that a manifest may give to its runtime: those that its target pins, and that a file may set at all.

A runtime has options that write files, load libraries or trade exactness for speed. A bundle comes
from a stranger, its target included: `qdx.targets.options` lists what such a file may speak of.
"""

from __future__ import annotations

from qdx.bundle.manifest import MANIFEST_NAME, Manifest
from qdx.exporter.errors import InvalidBundle, quoted
from qdx.targets.profile import check_profile

__all__ = ["checked_options"]


def checked_options(manifest: Manifest) -> dict[str, str]:
    """Returns the options of a bundle's runtime.

    Raises:
        InvalidBundle: The target says what no file may say, or does not pin an option.
    """
    target = manifest.target
    check_profile(target.profile, f"{MANIFEST_NAME}: target.profile", error=InvalidBundle)
    for name in target.options:
        if name not in target.profile.options:
            raise InvalidBundle(
                f"`target.options`: {quoted(name)} is not an option that {quoted(target.name)} pins, "
                f"expected {', '.join(sorted(target.profile.options))}"
            )
    return dict(target.options)
