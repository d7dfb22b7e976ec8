"""Options whose inputs change over the schedule: ranges of each group of timesteps, and quantized graphs by segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from qdx.analyze.offerings import offering
from qdx.analyze.prepared import prepare
from qdx.analyze.whole import Whole
from qdx.backends.registry import get_backend
from qdx.exporter.calibrate.timesteps import group_of
from qdx.exporter.dtypes import bits, number_type
from qdx.exporter.errors import InternalError
from qdx.source.timesteps import with_exact_timesteps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qdx.analyze.offerings import Offering
    from qdx.analyze.session import Session
    from qdx.analyze.whole import At

    Numbers = NDArray[np.float64]

__all__ = ["Schedule", "can_divide"]


def can_divide(one: Offering) -> bool:
    """Whether an option has ranges from calibration that may differ over the schedule: those of integers."""
    inputs = one.option.inputs
    return (
        inputs is not None
        and inputs.mode == "static"
        and inputs.quantized
        and inputs.timestep_groups == 1
        and not number_type(inputs.dtype).is_float
    )


@dataclass(frozen=True)
class Schedule:
    """The groups of timesteps that a session's calibration keeps apart.

    Attributes:
        session: The session.
    """

    session: Session

    @property
    def groups(self) -> int:
        """How many the plan asks for."""
        return self.session.findings.base.calibration.timestep_groups

    @cached_property
    def recorded(self) -> Mapping[str, int]:
        """How many were recorded, by graph; fewer than asked where there are not so many steps."""
        ranges = self.session.ranges
        if ranges is None:
            return {}
        return {w: len(ranges.groups(w)) + 1 for w in self.session.survey.bound if w in ranges.graphs}  # fmt: skip

    def group_at(self, place: int) -> int:
        """The group of a moment's timestep."""
        moment, ranges = self.session.survey.recorded[place].moment, self.session.ranges
        if moment.timestep is None or ranges is None:
            raise InternalError(f"`{moment.where}`: has no timestep and is divided by it")
        return group_of(moment.timestep, ranges.groups(moment.where))

    def extent(self, one: Offering, where: str, keys: Sequence[str]) -> tuple[Numbers, Numbers]:
        """The least and the greatest value that inputs of some operations have in every group of timesteps.

        Args:
            one: The option, whose observer and bits tell what counts.
            where: The graph.
            keys: Its operations.

        Returns:
            Low and high, float64 [inputs, groups].
        """
        found = []
        assert self.session.ranges is not None
        for key in keys:
            resolution = one.sites[where, key].resolution
            _, inputs = resolution.segments[0]
            for port in resolution.site.ports:
                recorded = self.session.ranges.statistics(where, key, port)
                found.append([
                    recorded.range(
                        inputs.observer,
                        percentile=inputs.percentile,
                        bits=bits(inputs.dtype),
                        symmetric=inputs.symmetric,
                        groups=[group],
                    )
                    for group in range(recorded.groups)
                ])  # fmt: skip
        ends = np.array(found, dtype=np.float64)
        return ends[:, :, 0], ends[:, :, 1]

    def offered(self, edges: Sequence[int]) -> dict[int, Offering]:
        """Options with ranges of their own in every segment, by number of the option; without those that cannot have them.

        Args:
            edges: Groups of timesteps at which segments begin, and their number behind the last.
        """
        findings = self.session.findings
        fractions = [round(edge / self.groups, 9) for edge in edges]
        wheres = [where for where, count in self.recorded.items() if count == self.groups]
        skeleton, captured = findings.source.skeleton, findings.source.captured
        profile, _ = with_exact_timesteps(findings.profile, skeleton, captured)
        found = {}
        for one in filter(can_divide, findings.offered):
            timed = offering(
                findings.source, findings.planned, profile, one.option, wheres, fractions
            )
            if timed is not None:
                found[one.option.id] = timed
        return found

    def whole(self, offered: Mapping[int, Offering], at: At, *, first: int) -> Whole:
        """What measures assignments in which groups may have options by segment.

        Args:
            offered: Those options; see `offered`.
            at: Of an assignment and the place of a moment, the option of every group then.
            first: Number of the first option by segment: that of option k is so much more.
        """
        session = self.session
        numbered = [
            replace(one, option=one.option.model_copy(update={"id": first + number}))
            for number, one in offered.items()
        ]
        prepared = prepare(
            session.findings.source,
            session.findings.planned,
            numbered,
            session.ranges,
            get_backend(session.findings.profile.runtime),
            list(session.survey.bound),
            session.learned,
        )
        both = {**session.prepared.graphs, **prepared.graphs}
        survey = replace(session.survey, prepared=replace(session.prepared, graphs=both))
        return Whole.of(
            survey,
            session.place / "whole",
            workers=session.workers,
            progress=session.progress,
            at=at,
        )
