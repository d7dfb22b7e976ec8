"""Types of the fields of an analysis. Imports no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

__all__ = ["Correlated", "Count", "Finite", "Index", "NotNegative", "Sha256", "Where"]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Index = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Correlated = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
Where = Annotated[
    str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}\.[A-Za-z_][A-Za-z0-9_]{0,127}$")
]
