"""Whether an artifact can do what a pipeline is about to ask of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qdx.exporter.capture.state import first_difference
from qdx.exporter.errors import UsageError

if TYPE_CHECKING:
    from qdx.exporter.capture.calls import LiveCall
    from qdx.runtime.methods import TargetMethod

__all__ = ["check_state"]


def check_state(target: TargetMethod, call: LiveCall) -> None:
    """Refuses a call of a component in another state than the artifact was made for.

    Args:
        target: The artifact that is nearest.
        call: The call.

    Raises:
        UsageError: Naming the attribute.
    """
    if dict(call.state) == dict(target.state):
        return
    name, now, then = first_difference(call.state, target.state)
    before = "as it was opened" if then is None else then
    raise UsageError(
        f"`{call.component}`: `{name}` is {now or 'as it was opened'}, the artifact was exported with it {before}",
        hint="an artifact computes what was exported; make the change before the export, or export again with it",
    )
