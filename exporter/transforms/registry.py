"""Every transform that a recipe may hold, in the order in which they are chosen and applied."""

from __future__ import annotations

from typing import Final

from qdx.exporter.transforms.bias_correction import CorrectBias
from qdx.exporter.transforms.given import TakeGiven
from qdx.exporter.transforms.insert_quantizers import InsertQuantizers
from qdx.exporter.transforms.low_rank import SplitLowRank
from qdx.exporter.transforms.opened_attention import OpenAttention
from qdx.exporter.transforms.rotation import RotateInputs
from qdx.exporter.transforms.rounding import RoundWeights
from qdx.exporter.transforms.smoothing import Smooth
from qdx.exporter.transforms.time_embedding import TimeTable
from qdx.exporter.transforms.transform import Transform

__all__ = ["TRANSFORMS"]

TRANSFORMS: Final[list[type[Transform]]] = [
    OpenAttention,  # its products are sites that can be smoothed and quantized
    Smooth,
    TimeTable,  # behind smoothing, so that smoothed layers can become part of the table
    RotateInputs,  # what smoothing left, and of no layer that is part of the table
    SplitLowRank,  # of smooth and rotated weights
    # From here on the graph is quantized.
    TakeGiven,  # what is given is not rounded
    RoundWeights,
    CorrectBias,  # of the error that rounded weights make
    InsertQuantizers,
]
