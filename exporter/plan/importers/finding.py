"""What an importer says of each part of a foreign plan: carried exactly, approximately, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qdx.exporter.errors import quoted

__all__ = ["Finding", "Verdict"]

Verdict = Literal["exact", "approximate", "refused"]


@dataclass(frozen=True)
class Finding:
    """One part of a foreign plan and what became of it.

    Attributes:
        place: Where it stands in the file, such as `quant_cfg[1]`; the file itself where it is said of all of it.
        verdict: `exact`: the plan says the same, to the rule by which ranges are chosen. `approximate`: it says something near. `refused`:
            nothing stands in the plan for it.
        words: What it says, in our words; then what differs, or why it is refused.
    """

    place: str
    verdict: Verdict
    words: str

    def __str__(self) -> str:
        return f"{quoted(self.place)}: {self.verdict}: {self.words}"
