"""What options learn, in which a method rounds weights by calls: all of them together, each as an export of it alone would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qdx.calibration.learning_calls import learning_calls
from qdx.exporter.errors import UsageError
from qdx.exporter.formats.rounding import CODES
from qdx.tune.learner import CallLearner, wanted_calls
from qdx.tune.lessons import Lesson

if TYPE_CHECKING:
    import torch

    from qdx.analyze.offerings import Offering
    from qdx.calibration.kept import Kept
    from qdx.compile.recipe import Begun
    from qdx.exporter.progress import Progress
    from qdx.exporter.transforms.transform import Asked, Transform
    from qdx.source.pipeline import TracedPipeline
    from qdx.source.planned import PlannedGraphs

__all__ = ["Learned", "learner_of"]


@dataclass(frozen=True)
class Learned:
    """Stored values of weights, learned when they are first asked for; a `Learner`.

    Each weight is known by what it alone depends on, so that it is the same whatever options other weights have.

    Attributes:
        learner: Learns; None where all that is asked for was learned before, on another machine.
        codes: What is learned of a site, as `LearnedCodes.packed`, by `Lesson.key_at`.
    """

    learner: CallLearner | None = field(default=None, repr=False)
    codes: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)

    def learn(self, where: str, begun: Sequence[Begun]) -> None:
        """Learns what recipes of one graph ask for, all of them together.

        Raises:
            InvalidModel: A weight cannot be quantized, or calls show nothing of its inputs.
            UsageError: Nothing learns here, and something was not learned before.
        """
        lessons = [Lesson(one.choice.prepared, asked) for one in begun if (asked := one.learns)]
        left = [
            one for one in lessons if not all(one.key_at(where, k) in self.codes for k in one.asked)
        ]
        if not left:
            return
        if self.learner is None:
            raise UsageError(
                "rounded weights are asked for that this machine would learn from something else",
                hint="all machines need the same processor, model and versions",
            )
        for lesson, found in zip(left, self.learner.learned_together(where, left), strict=True):
            for key, parts in found.items():
                self.codes[lesson.key_at(where, key)] = parts[CODES]

    def learned(
        self, where: str, prepared: Sequence[Transform], asked: Mapping[str, Asked]
    ) -> dict[str, dict[str, torch.Tensor]]:
        """See `qdx.exporter.transforms.transform.Learner`.

        Raises:
            KeyError: It was not learned.
        """
        lesson = Lesson(tuple(prepared), asked)
        return {key: {CODES: self.codes[lesson.key_at(where, key)]} for key in asked}


def learner_of(
    source: TracedPipeline,
    planned: PlannedGraphs,
    offered: Sequence[Offering],
    call: Mapping[str, Any],
    *,
    prompts: Sequence[str] | None,
    workers: int,
    kept: Kept | None,
    progress: Progress,
) -> CallLearner | None:
    """What learns for the options of a session, from the calls that an export of its plan learns from; None where none does.

    Args:
        source: The pipeline.
        planned: Its graphs, with the plan.
        offered: The options.
        call: Of the session's runs, with all that was not given: by it a search knows what the analysis learned.
        prompts: As for a calibration.
        workers: Processes at a time.
        kept: Keeps what is learned; None keeps nothing.
        progress: Told of calls and weights.
    """
    wanted: dict[str, int] = {}
    for one in offered:
        for where, most in wanted_calls(one.resolved).items():
            wanted[where] = max(most, wanted.get(where, 0))
    if not wanted:
        return None
    calls = learning_calls(
        source, planned.resolved.plan, dict(call),
        prompts=prompts, planned=planned, workers=workers, progress=progress,
    )  # fmt: skip
    return CallLearner(
        calls,
        wanted,
        store=None if kept is None else kept.store,
        fresh=kept is not None and kept.fresh,
        progress=progress,
    )
