"""What components answer where nothing computes: zeros of the right shapes, found on fake tensors once for each kind of call."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.utils import _pytree as pytree

from qdx.exporter.capture.calls import LiveCall, substitute
from qdx.exporter.capture.copies import copy_of
from qdx.exporter.capture.cost import TooCostlyError
from qdx.exporter.capture.distributions import is_plain, map_tensors
from qdx.exporter.capture.known_masks import KnownMasks
from qdx.exporter.capture.known_values import LISTED_LIMIT, are_alike
from qdx.exporter.capture.left_behind import hand_back
from qdx.exporter.capture.materialize import fill_weights
from qdx.exporter.capture.skeleton import Skeleton
from qdx.exporter.errors import QdxError

__all__ = ["FakeAnswers", "FakeRun", "fake_output"]


@dataclass(frozen=True)
class FakeRun:
    """What a method returned on fake tensors.

    Attributes:
        output: Its structure, with fake tensors.
        fixed: Arguments whose values its Python read, with these values; where there are any, the output is right for
            them alone.
        reads_results: Whether its Python reads what it computes from its weights, which no graph can.
        written: Arguments into which it wrote.
    """

    output: Any
    fixed: Mapping[str, torch.Tensor] = field(default_factory=dict)
    reads_results: bool = False
    written: frozenset[str] = frozenset()


class FakeAnswers:
    """Answers in zeros; calls that can only have outputs of the same shapes share one run on fake tensors.

    Args:
        skeleton: The pipeline without weights.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        self._skeleton = skeleton
        self._runs: dict[str, FakeRun] = {}
        self._answered: set[tuple[int, ...]] = set()

    def __call__(self, call: LiveCall) -> Any:
        """What a call is answered."""
        return self.answer(call)[0]

    def answer(self, call: LiveCall) -> tuple[Any, FakeRun]:
        """What a call is answered, and the run on fake tensors behind it."""
        run = self._run(call)
        zeros = map_tensors(
            run.output, lambda fake: torch.zeros(tuple(fake.shape), dtype=fake.dtype)
        )
        self._answered |= {
            tuple(leaf.shape)
            for leaf in pytree.tree_leaves(zeros)
            if isinstance(leaf, torch.Tensor) and leaf.dim() > 1
        }
        return zeros, run

    def _run(self, call: LiveCall) -> FakeRun:
        key = _key(call)
        found = None if key is None else self._runs.get(key)
        if found is not None and not found.fixed:
            return found
        found = fake_run(self._skeleton, call, self._answered)
        if key is not None and is_plain(found.output):
            self._runs[key] = found
        return found


def _key(call: LiveCall) -> str | None:
    """All that the shapes of an output can depend on; None where an argument is an object that nobody can tell.

    A number that is no whole one, such as a timestep, makes no shape.
    """
    leaves: dict[str, object] = {}
    for name, leaf in call.leaves.items():
        if isinstance(leaf, torch.Tensor):
            leaves[name] = tuple(leaf.shape), leaf.dtype
        elif isinstance(leaf, float):
            leaves[name] = float
        elif leaf is None or isinstance(leaf, bool | int | str):
            leaves[name] = leaf
        else:
            return None
    return repr((call.where, call.state, leaves, pytree.tree_structure(call.arguments)))


def fake_output(skeleton: Skeleton, call: LiveCall) -> Any:
    """What a method returns, with fake tensors: its structure, and the shapes in it."""
    return fake_run(skeleton, call).output


def fake_run(
    skeleton: Skeleton, call: LiveCall, answered: AbstractSet[tuple[int, ...]] = frozenset()
) -> FakeRun:
    """Runs a method on fake tensors; where its Python reads values of arguments, on the least of them that it needs.

    Where it reads what it computes, nothing but its weights helps: then it really runs.

    Nothing of the run stays in the component but what its processors keep, see `hand_back`.

    Args:
        skeleton: The pipeline without weights.
        call: The call.
        answered: Shapes of what components have answered: zeros of these stand for what nobody knows.
    """
    with skeleton.mode.unwatched():
        return _fake_run(skeleton, call, answered)


def _fake_run(
    skeleton: Skeleton, call: LiveCall, answered: AbstractSet[tuple[int, ...]]
) -> FakeRun:
    try:
        output, written = _on_fakes(skeleton, call)
        return FakeRun(output, written=written)
    except (QdxError, TooCostlyError, MemoryError):
        raise
    except Exception:  # the component's own Python may raise anything
        for run in (partial(_on_values, answered), _on_unknown_numbers, _on_weights):
            if found := run(skeleton, call):
                return found
        raise


def _on_weights(skeleton: Skeleton, call: LiveCall) -> FakeRun | None:
    """A run that computes with the component's own weights; None where its folder holds none, or that fails, too."""
    if call.module is None or call.component not in skeleton.folder.components:
        return None
    copied = copy_of(call.module, name=call.component)
    own = {name: tensor.detach().clone() for name, tensor in _tensors(call).items()}
    writes = _Writes(own)
    try:
        fill_weights(copied, skeleton, call.component)
        with torch.no_grad():
            found = getattr(copied, call.method)(**substitute(call.arguments, own))
    except Exception:  # noqa: BLE001  # the caller raises what the first run did
        return None
    hand_back(copied, call.module)
    return FakeRun(found, reads_results=True, written=writes.found)


def _on_unknown_numbers(skeleton: Skeleton, call: LiveCall) -> FakeRun | None:
    """A run in which numbers that nobody knows stand for values that are read; None where these do not help."""
    skeleton.mode.allow_scalar_outputs = True
    try:
        found = _attempt(skeleton, call, None)
    finally:
        skeleton.mode.allow_scalar_outputs = False
    return None if found is None else FakeRun(found[0], written=found[1])


def _on_values(
    answered: AbstractSet[tuple[int, ...]], skeleton: Skeleton, call: LiveCall
) -> FakeRun | None:
    """A run on real values of arguments that are small or hold one value; None where these do not help."""
    values = {
        name: leaf.detach().clone()
        for name, leaf in call.leaves.items()
        if isinstance(leaf, torch.Tensor) and _is_known(leaf, answered)
    }
    found = _attempt(skeleton, call, values)
    if found is None:
        return None
    for name in sorted(values, key=lambda name: -values[name].numel()):
        fewer = {key: value for key, value in values.items() if key != name}
        without = _attempt(skeleton, call, fewer)
        if without is not None:
            found, values = without, fewer
    return FakeRun(found[0], values, written=found[1])


def _is_known(leaf: torch.Tensor, answered: AbstractSet[tuple[int, ...]]) -> bool:
    """Whether an argument's values are small or alike, and no zeros that stand for what a component answers."""
    stands_in = tuple(leaf.shape) in answered and not leaf.any()
    return (leaf.numel() <= LISTED_LIMIT or are_alike(leaf)) and not stands_in


def _attempt(
    skeleton: Skeleton, call: LiveCall, values: Mapping[str, torch.Tensor] | None
) -> tuple[Any, frozenset[str]] | None:
    """What `_on_fakes` answers on these values; None where it fails."""
    try:
        return _on_fakes(skeleton, call, values)
    except (QdxError, TooCostlyError, MemoryError):
        raise
    except Exception:  # noqa: BLE001  # the caller raises what the first run did
        return None


def _on_fakes(
    skeleton: Skeleton, call: LiveCall, values: Mapping[str, torch.Tensor] | None = None
) -> tuple[Any, frozenset[str]]:
    """Runs a copy of the component with fake parameters; its output, and the arguments into which it wrote.

    Args:
        skeleton: The pipeline without weights.
        call: The call.
        values: Arguments that stay real, and what is computed from them alone does too. None makes every tensor fake, also
            those that the component makes.
    """
    with skeleton.mode:
        fakes = {n: torch.empty(tuple(t.shape), dtype=t.dtype) for n, t in _tensors(call).items()}
    # Values are given again to other runs, so that no run may write into them.
    own = {name: value.clone() for name, value in (values or {}).items()}
    given = {**fakes, **own}
    writes = _Writes(given)
    arguments = substitute(call.arguments, given)
    copied = None if call.module is None else copy_of(call.module, name=call.component)
    method = call.original if copied is None else getattr(copied, call.method)
    with KnownMasks() if values is not None else skeleton.mode, torch.no_grad():
        found = _settled(method(**arguments))
    if copied is not None and call.module is not None:
        hand_back(copied, call.module)
    return found, writes.found


class _Writes:
    """Which of some tensors are written into from now on.

    Args:
        tensors: By name.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self._before = {name: (one, one._version) for name, one in tensors.items()}  # noqa: SLF001  # its only name

    @property
    def found(self) -> frozenset[str]:
        """Their names."""
        written = (n for n, (one, version) in self._before.items() if one._version != version)  # noqa: SLF001
        return frozenset(written)


def _tensors(call: LiveCall) -> dict[str, torch.Tensor]:
    return {name: leaf for name, leaf in call.leaves.items() if isinstance(leaf, torch.Tensor)}


def _settled(output: Any) -> Any:
    """The output, whose sizes must be numbers.

    Raises:
        ValueError: A size depends on values that nothing knows.
    """
    for leaf in pytree.tree_leaves(output):
        if isinstance(leaf, torch.Tensor) and not all(type(size) is int for size in leaf.shape):
            raise ValueError(f"an output of shape {list(leaf.shape)} depends on values")
    return output
