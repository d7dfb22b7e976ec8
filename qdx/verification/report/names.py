"""Names of the files of a report."""

from __future__ import annotations

from typing import Final

__all__ = ["FILES", "IMAGES", "JUNIT", "PAGE", "REPORT", "RUNS_SHOWN", "SIDES", "image_name"]

RUNS_SHOWN: Final = 8
"""Runs of which a report shows pictures: a page holds them all, and nobody looks at a hundred."""
SIDES: Final = ("reference", "artifact", "difference")


def image_name(side: str, run: int) -> str:
    """`reference.png` of the first run, `reference-2.png` of the second."""
    return f"{side}.png" if run == 0 else f"{side}-{run + 1}.png"


IMAGES: Final = tuple(image_name(side, run) for run in range(RUNS_SHOWN) for side in SIDES)
"""Names of all pictures that a report may have."""
PAGE: Final = "report.html"
JUNIT: Final = "junit.xml"
REPORT: Final = "report.json"
FILES: Final = (*IMAGES, PAGE, JUNIT, REPORT)
"""In the order of writing: whoever finds the JSON finds the rest as well."""
