"""Every artifact is opened before its bundle is finished, where a crash of the runtime cannot take the export along."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from qdx.backends.capabilities import Tries
from qdx.exporter.child import ChildEnded, KeptChild
from qdx.exporter.errors import InvalidBundle, Refusal, TargetRefusal

if TYPE_CHECKING:
    from qdx.backends.contract import Backend
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.targets.profile import TargetProfile

__all__ = ["check_opens"]

_OPENER: Final = KeptChild("qdx.compile.opening_worker")
"""The process of this one's exports."""
_HINT: Final = "leave the component out: name the others with --components, it then runs in PyTorch; or choose another target"


def check_opens(
    graph: Graph, artifact: Path, backend: Backend, profile: TargetProfile
) -> tuple[str, ...]:
    """Opens what a graph became.

    Args:
        graph: With the artifact's face.
        artifact: What the backend opens.
        backend: The target's.
        profile: The target.

    Returns:
        What could not be checked, a line each.

    Raises:
        TargetRefusal: The runtime cannot open it, refuses operations of it, or ended while it tried.
    """
    try:
        if isinstance(backend, Tries):
            unchecked = _try_open(profile, artifact, usual_shapes(graph))
            return tuple(f"`{graph.where}`: {line}" for line in unchecked)
        return _opened(graph, artifact, backend, profile)
    except TargetRefusal as error:
        words = f"`{graph.where}`: {error.message}"
        raise TargetRefusal(words, refusals=error.refusals, hint=error.hint) from error
    except InvalidBundle as error:
        words = f"{profile.runtime} cannot open what was written: {_in_one_line(error.message)}"
        raise _refusal(graph, words) from error
    except ChildEnded as error:
        words = f"{profile.runtime} {error} while it opened what was written"
        raise _refusal(graph, words) from error


def _opened(
    graph: Graph, artifact: Path, backend: Backend, profile: TargetProfile
) -> tuple[str, ...]:
    """Opens an artifact as it is opened to run it."""
    try:
        backend.open(artifact, dict(profile.options))
    except TargetRefusal as error:  # of what takes the runtime's place on this machine
        return (f"`{graph.where}`: was not opened here: {error.message}",)
    return ()


def _try_open(
    profile: TargetProfile, artifact: Path, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[str, ...]:
    """Opens an artifact in the process that is kept for it; raises as that does.

    Returns:
        What could not be checked, a line each.
    """
    answer = _OPENER.ask(
        {
            "runtime": profile.runtime,
            "artifact": str(artifact.resolve()),
            "options": dict(profile.options),
            "shapes": {name: list(sizes) for name, sizes in shapes.items()},
        }
    )
    return tuple(answer["unchecked"])


def usual_shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Sizes of a usual call by input, of those inputs whose open sizes are known."""
    found = {}
    for spec in graph.inputs:
        sizes = [
            size if isinstance(size, int) else getattr(graph.sizes.get(size), "usual", None)
            for size in spec.shape
        ]
        if None not in sizes:
            found[spec.name] = tuple(cast("list[int]", sizes))
    return found


def _in_one_line(words: str) -> str:
    return "; ".join(filter(None, map(str.strip, words.splitlines())))


def _refusal(graph: Graph, reason: str) -> TargetRefusal:
    return TargetRefusal(
        f"`{graph.where}`: {reason}", refusals=(Refusal(graph.where, reason),), hint=_HINT
    )
