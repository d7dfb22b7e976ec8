"""The options that a manifest may give to its runtime: those that the target pins, no others.

A runtime has options that write files, load libraries or trade exactness for speed. A bundle comes
from a stranger, so it may only speak of those that our own profile of the target names.
"""

from __future__ import annotations

from qdx.bundle.manifest import Manifest
from qdx.exporter.errors import InvalidBundle, UsageError, quoted
from qdx.targets import load_target

__all__ = ["checked_options"]


def checked_options(manifest: Manifest) -> dict[str, str]:
    """Returns the options of a bundle's runtime.

    Raises:
        InvalidBundle: The target is unknown, has another runtime, or does not pin an option.
    """
    target = manifest.target
    try:
        profile = load_target(target.name)
    except UsageError:
        raise InvalidBundle(
            f"`target.name`: {quoted(target.name)} is not a target of this version of qdx",
            hint="open it with the version of qdx that wrote it, or export again",
        ) from None
    if target.runtime != profile.runtime:
        raise InvalidBundle(
            f"`target.runtime`: {quoted(target.runtime)}, "
            f"expected {quoted(profile.runtime)} for {quoted(target.name)}"
        )
    for name in target.options:
        if name not in profile.options:
            raise InvalidBundle(
                f"`target.options`: {quoted(name)} is none that {quoted(target.name)} pins, "
                f"expected {', '.join(sorted(profile.options))}"
            )
    return dict(target.options)
