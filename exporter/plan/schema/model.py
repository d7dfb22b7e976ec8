"""The small types of values that the models of a plan share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from qdx.exporter.strict_model import StrictModel as PlanModel

__all__ = ["Decibels", "Name", "PlanModel", "Ratio", "Words"]

Words = Annotated[str, Field(min_length=1, max_length=1000)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=64)]
Decibels = Annotated[float, Field(ge=0, le=200, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
