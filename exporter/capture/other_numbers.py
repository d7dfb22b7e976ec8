"""Numbers of a call that reach components, such as the strength of a ControlNet: inputs of the graphs, not constants.

What moves between two runs is an input. So the pipeline runs dry once more with other values of the arguments that a
component was given as they are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from qdx.exporter.capture.dry_run import dry_run
from qdx.exporter.capture.media import call_parameters
from qdx.exporter.errors import InvalidModel, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qdx.exporter.capture.calls import CallRecord
    from qdx.exporter.capture.skeleton import Skeleton
    from qdx.exporter.capture.values_read import ValuesRead

__all__ = ["run_with_other_numbers"]

_STRENGTHS: Final = re.compile(r"scale|_strength|guidance_(start|end)")
"""Names of numbers that are multiplied with, mostly; the model's Python may ask others, such as a frame rate."""


def run_with_other_numbers(
    skeleton: Skeleton,
    call: dict[str, Any],
    records: Sequence[CallRecord],
    values: ValuesRead | None = None,
) -> list[CallRecord]:
    """The calls of runs in which numbers that reach components are others; none where no number does.

    Args:
        skeleton: The pipeline.
        call: Its arguments, complete.
        records: Of the run with them.
        values: As for `dry_run`.
    """
    reached = {
        leaf
        for record in records
        for leaf in record.constants().values()
        if isinstance(leaf, float)
    }
    given = {
        name: call.get(name, one.default)
        for name, one in call_parameters(skeleton.pipeline).items()
        if _STRENGTHS.search(name)
        and (isinstance(one.default, float) or _holds_float(call.get(name)))
    }
    others = {name: _other(v) for name, v in given.items() if reached & _numbers(v)}
    if not others:
        return []
    try:
        return dry_run(skeleton, {**call, **others}, values)
    except (UsageError, InvalidModel):
        # Together they may contradict each other. What is refused alone, too, stays a constant, and is refused then.
        found: list[CallRecord] = []
        for name, value in others.items():
            found += _run(skeleton, {**call, name: value}, values)
        return found


def _run(skeleton: Skeleton, call: dict[str, Any], values: ValuesRead | None) -> list[CallRecord]:
    try:
        return dry_run(skeleton, call, values)
    except (UsageError, InvalidModel):
        return []


def _holds_float(value: Any) -> bool:
    return any(isinstance(one, float) for one in _numbers(value))


def _numbers(value: Any) -> set[float]:
    values = value if isinstance(value, list) else [value]
    return {one for one in values if isinstance(one, int | float) and not isinstance(one, bool)}


def _other(value: Any) -> Any:
    if isinstance(value, list):
        return [_other(one) for one in value]
    return 0.75 * value or 0.25
