"""Maps of optimum-quanto, a type for each module, and `QuantoConfig` of diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from qdx.exporter.errors import quoted
from qdx.exporter.plan.importers.draft import WEIGHTED, Draft
from qdx.exporter.plan.importers.foreign import Foreign
from qdx.exporter.plan.importers.importer import PlanImporter
from qdx.exporter.plan.importers.schemes import (
    NoScheme,
    Scheme,
    by_block,
    by_channel,
    integers,
    scheme_words,
)

__all__ = ["Quanto"]

_GROUP: Final = 128
_FLOAT8: Final = {"qfloat8", "qfloat8_e4m3fn", "float8"}
_SHIFTED: Final = "its zero points are floats, here whole numbers; in blocks of 128, where quanto divides rows that 128 does not divide otherwise"  # fmt: skip
_MOVING: Final = (
    "the range follows the batches with a momentum of 0.9, here it is that of all values"
)


class Quanto(PlanImporter):
    """Reads `{"module.name": {"weights": "qint8", "activations": "none"}}`."""

    tool = "quanto"
    title = "optimum-quanto"
    reads = "`quanto_qmap.json` or what `quantization_map` returns, or `config.json` of a model that diffusers saved"

    def recognizes(self, data: Mapping[str, Any]) -> bool:
        """See `PlanImporter`."""
        inner = data.get("quantization_config", data)
        if isinstance(inner, dict) and inner.get("quant_method") == "quanto":
            return True
        return bool(data) and all(isinstance(one, dict) and one.keys() == {"weights", "activations"} for one in data.values())  # fmt: skip

    def read(self, root: Foreign, draft: Draft) -> None:
        """See `PlanImporter`."""
        config = root.find("quantization_config") or root
        if "quant_method" in config.value:
            _config(config, draft)
            return
        modules: dict[tuple[str, str], list[str]] = {}
        for name, one in root.members():
            draft.refuse_others(one, ("weights", "activations"))
            kinds = tuple("none" if one.find(key) is None else one.need(key).text() for key in ("weights", "activations"))  # fmt: skip
            modules.setdefault((kinds[0], kinds[1]), []).append(name)
        for (weights, activations), names in modules.items():
            _rule(root, draft, weights, activations, names)


def _config(config: Foreign, draft: Draft) -> None:
    """The configuration of diffusers: linear layers, but those whose own name is listed."""
    draft.refuse_others(config, ("quant_method", "weights_dtype", "modules_to_not_convert"))
    kind = config.find("weights_dtype")
    _rule(kind or config, draft, "int8" if kind is None else kind.text(), "none", None)
    kept = config.find("modules_to_not_convert")
    for name in () if kept is None else kept.texts():
        draft.rule("off", op=("linear",), modules=(name, f"*.{name}"), keep="float")
    if kept is not None:
        draft.exact(kept, "these stay float")


def _rule(
    place: Foreign, draft: Draft, weights: str, activations: str, names: list[str] | None
) -> None:
    subject = "linear layers" if names is None else f"{len(names)} modules"
    try:
        scheme, note = _weights(weights)
        inputs, moving = _inputs(activations)
    except NoScheme as bad:
        draft.refuse(place, f"{subject}: {bad}")
        return
    operations = ("linear",) if names is None else WEIGHTED
    draft.rule("weights", op=operations, modules=names, weights=scheme, inputs=inputs)
    words = f"{subject}: weights {scheme_words(scheme)}"
    if inputs is not None:
        words += f", inputs {scheme_words(inputs)}"
    draft.noted(place, words, "; ".join(filter(None, [note, moving])))


def _weights(kind: str) -> tuple[Scheme, str]:
    name = kind.removeprefix("q")
    if kind in _FLOAT8:
        return by_channel({"dtype": "float8_e4m3fn"}), ""
    if name == "int8":
        return by_channel(integers(8, symmetric=True)), ""
    if name in {"int4", "int2"}:
        return by_block(integers(int(name[3:]), symmetric=False), _GROUP), _SHIFTED
    raise NoScheme(f"weights {quoted(kind)}")


def _inputs(kind: str) -> tuple[Scheme | None, str]:
    if kind == "none":
        return None, ""
    if kind == "qint8":
        return {"dtype": "int8", "symmetric": True}, _MOVING
    if kind in _FLOAT8:
        return {"dtype": "float8_e4m3fn"}, _MOVING
    raise NoScheme(f"activations {quoted(kind)}")
