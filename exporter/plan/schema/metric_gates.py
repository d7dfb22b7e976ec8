"""Bounds on registered metrics: `<metric>_min` or `<metric>_max` at every level at which a metric is computed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from qdx.exporter.errors import InternalError, quoted
from qdx.exporter.measure.metrics.metric import Level, Metric
from qdx.exporter.measure.metrics.registry import metrics_of
from qdx.exporter.strict_model import StrictModel, described

__all__ = ["MetricGates"]

_STRICT: Final = ConfigDict(strict=True)


def _with_metrics(schema: dict[str, Any], model: type[MetricGates]) -> None:
    """Gives the schema of a level the keys of its metrics; those that every plan must have are there already."""
    described(schema, model)
    for metric in metrics_of(model.level):
        extreme = "Least" if metric.better == "more" else "Greatest"
        key = {
            **_number(metric).json_schema(),
            "description": f"{extreme} {metric.meaning}.",
            "title": metric.gate.replace("_", " ").title(),
        }
        schema["properties"].setdefault(metric.gate, key)
    schema["additionalProperties"] = False


class MetricGates(StrictModel):
    """Bounds at one level. Its metrics are those of the registry; those that every plan must bound are declared too."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_with_metrics)
    level: ClassVar[Level]
    __pydantic_extra__: dict[str, Any]

    @classmethod
    def known_keys(cls) -> tuple[str, ...]:
        """The keys that a plan may have here."""
        return tuple(
            dict.fromkeys((*super().known_keys(), *(m.gate for m in metrics_of(cls.level))))
        )

    @property
    def bounds(self) -> tuple[tuple[Metric, float], ...]:
        """The metrics that are bounded and their bounds, in the order of the registry.

        Raises:
            InternalError: A bound is for a metric that is not registered any more.
        """
        asked = {**dict(self), **self.__pydantic_extra__}
        found = [
            (m, asked[m.gate]) for m in metrics_of(self.level) if asked.get(m.gate) is not None
        ]
        lost = self.__pydantic_extra__.keys() - {metric.gate for metric, _ in found}
        if lost:
            raise InternalError(f"{quoted(min(lost))}: no metric of that name is registered")
        return tuple(found)

    @model_validator(mode="after")
    def _check(self) -> Self:
        faults = [*self._faults()]
        if faults:
            raise ValidationError.from_exception_data(type(self).__name__, faults)
        return self

    def _faults(self) -> Iterator[InitErrorDetails]:
        metrics = {metric.gate: metric for metric in metrics_of(self.level)}
        for key, value in self.__pydantic_extra__.items():
            if key not in metrics:
                yield {"type": "extra_forbidden", "loc": (key,), "input": value}
                continue
            try:
                _number(metrics[key]).validate_python(value)
            except ValidationError as bad:
                for fault in bad.errors(include_url=False):
                    yield {
                        "type": fault["type"],
                        "loc": (key,),
                        "input": value,
                        "ctx": fault.get("ctx", {}),
                    }


def _number(metric: Metric) -> TypeAdapter[float]:
    least, most = metric.gate_range
    field = Field(ge=least, le=most, allow_inf_nan=False)
    return TypeAdapter(Annotated[float, field], config=_STRICT)
