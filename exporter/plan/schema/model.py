"""The small types of values that the models of a plan share."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from qdx.exporter.strict_model import StrictModel as PlanModel

__all__ = ["Decibels", "Name", "OneOf", "PlanModel", "Ratio", "Words"]

Words = Annotated[str, Field(min_length=1, max_length=1000)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=64)]
Decibels = Annotated[float, Field(ge=0, le=200, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class OneOf:
    """Marks text that must be a name out of a registry, as `Literal` does for names that never change.

    Args:
        names: Returns the names; called whenever a value is checked or the JSON Schema is asked for.
    """

    def __init__(self, names: Callable[[], Collection[str]]) -> None:
        self._names = names

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        del source, handler
        return core_schema.no_info_plain_validator_function(self._checked)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        del schema, handler
        return {"enum": list(self._names()), "type": "string"}

    def _checked(self, value: object) -> str:
        names = list(self._names())
        if isinstance(value, str) and value in names:
            return value
        *others, last = (f"'{name}'" for name in names)
        expected = f"{', '.join(others)} or {last}" if others else last
        raise PydanticKnownError("literal_error", {"expected": expected})
