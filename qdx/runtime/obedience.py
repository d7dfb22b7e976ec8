"""Whether an artifact can do what a pipeline is about to ask of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qdx.exporter.capture.state import first_difference
from qdx.exporter.errors import UsageError

if TYPE_CHECKING:
    from qdx.exporter.capture.calls import LiveCall
    from qdx.runtime.methods import TargetMethod

__all__ = ["check_call"]


def check_call(target: TargetMethod, call: LiveCall) -> None:
    """Refuses a call of a component in another state, or with other fixed values, than the artifact was made for.

    Args:
        target: The artifact that is nearest.
        call: The call.

    Raises:
        UsageError: Naming the attribute or the argument.
    """
    _check_state(target, call)
    for name, values in target.fixed.items():
        leaf = call.leaves.get(name)
        if not isinstance(leaf, torch.Tensor) or leaf.tolist() != values:
            raise UsageError(
                f"`{target.where}`: `{name}` holds other values than at the export, and the artifact's computation "
                "depends on them",
                hint="call it as at the export (a prompt of as many tokens), or export again with a --call like this one",
            )


def _check_state(target: TargetMethod, call: LiveCall) -> None:
    if dict(call.state) == dict(target.state):
        return
    name, now, then = first_difference(call.state, target.state)
    before = "as it was opened" if then is None else then
    raise UsageError(
        f"`{call.component}`: `{name}` is {now or 'as it was opened'}, the artifact was exported with it {before}",
        hint="an artifact computes what was exported; make the change before the export, or export again with it",
    )
