"""What learns in an export: roundings, and whole quantized graphs."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from qdx.calibration.learning_calls import learning_calls
from qdx.tune.learner import CallLearner, wanted_calls
from qdx.tune.tuner import Tuner

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from qdx.cache.store import Store
    from qdx.exporter.plan.schema.plan import Plan
    from qdx.exporter.progress import Progress
    from qdx.source.pipeline import TracedPipeline
    from qdx.source.planned import PlannedGraphs

__all__ = ["Learning", "learning_of"]


@dataclass(frozen=True)
class Learning:
    """What learns; recorded calls are there while the context lasts.

    Attributes:
        learner: Learns to round; None where the plan asks for none.
        tuner: Lets quantized graphs learn, likewise.
    """

    learner: CallLearner | None
    tuner: Tuner | None
    _stack: ExitStack = field(default_factory=ExitStack, repr=False, compare=False)

    def __enter__(self) -> Self:
        """Nothing is recorded yet."""
        for one in (self.learner, self.tuner):
            if one is not None:
                self._stack.enter_context(one)
        return self

    def __exit__(self, *exception: object) -> None:
        """Removes what was recorded."""
        self._stack.close()


def learning_of(
    source: TracedPipeline,
    planned: PlannedGraphs,
    plan: Plan,
    prompts: Sequence[str] | None,
    cache: Store | None,
    *,
    workers: int | None,
    device: torch.device,
    fresh: bool,
    progress: Progress,
) -> Learning:
    """What the plan of an export lets learn; arguments as for `export`, nothing computes yet.

    Raises:
        UsageError: The pipeline does not take the plan's call.
    """
    wanted = wanted_calls(planned.resolved)
    if not wanted and plan.tune is None:
        return Learning(None, None)
    calls = learning_calls(
        source, plan, source.call, prompts=prompts, planned=planned, workers=workers, progress=progress
    )  # fmt: skip
    learner = CallLearner(calls, wanted, store=cache, fresh=fresh, progress=progress)
    tuner = None
    if plan.tune is not None:
        tuner = Tuner(
            calls, planned.resolved, store=cache, fresh=fresh, device=device, progress=progress
        )
    return Learning(learner if wanted else None, tuner)
