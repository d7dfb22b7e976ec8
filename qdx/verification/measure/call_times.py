"""How long calls took while a verification compared them; no benchmark, nothing else on the machine is kept still."""

from __future__ import annotations

import statistics

__all__ = ["CallTimes"]


class CallTimes:
    """Seconds of calls, by what computed them and by method."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], list[float]] = {}

    def measured(self, kind: str, where: str, seconds: float) -> None:
        """Takes a call that is done.

        Args:
            kind: Such as `REFERENCE`, or the name of a rung.
            where: `unet.forward`.
            seconds: What it took.
        """
        self._seconds.setdefault((kind, where), []).append(seconds)

    def median_s(self, kind: str, where: str) -> float | None:
        """The median call; None where nobody computed any. The first call, which also loads, hardly moves it."""
        found = self._seconds.get((kind, where))
        return statistics.median(found) if found else None

    def total_s(self, kind: str, where: str) -> float | None:
        """All calls together; None where nobody computed any."""
        found = self._seconds.get((kind, where))
        return sum(found) if found else None
