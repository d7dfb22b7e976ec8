"""`_quantization_metadata` of ComfyUI: a format for each layer of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from qdx.exporter.errors import InvalidInput, quoted
from qdx.exporter.plan.importers.draft import WEIGHTED, Draft
from qdx.exporter.plan.importers.foreign import Foreign
from qdx.exporter.plan.importers.foreign_names import modules_of
from qdx.exporter.plan.importers.importer import PlanImporter
from qdx.exporter.plan.importers.patterns import NoGlobError
from qdx.exporter.plan.importers.schemes import Scheme, scheme_words
from qdx.exporter.strict_json import parse_json

__all__ = ["ComfyUi"]

_FORMATS: Final[dict[str, Scheme]] = {
    "float8_e4m3fn": {"dtype": "float8_e4m3fn", "granularity": "tensor"},
    "nvfp4": {"dtype": "nvfp4", "granularity": "block", "block": 16},
    "mxfp8": {"dtype": "mxfp8", "granularity": "block", "block": 32},
    "int8_tensorwise": {"dtype": "int8", "granularity": "tensor", "symmetric": True},
}
_KEY: Final = "_quantization_metadata"


class ComfyUi(PlanImporter):
    """Reads `{"format_version": "1.0", "layers": {"name": {"format": "float8_e4m3fn"}}}`."""

    tool = "comfyui"
    title = "ComfyUI"
    reads = "JSON of `_quantization_metadata`, alone or under that name"

    def recognizes(self, data: Mapping[str, Any]) -> bool:
        """See `PlanImporter`."""
        return _KEY in data or ("format_version" in data and "layers" in data)

    def read(self, root: Foreign, draft: Draft) -> None:
        """See `PlanImporter`."""
        found = root.find(_KEY)
        if found is not None and isinstance(
            found.value, str
        ):  # as metadata of safetensors holds it
            found = Foreign(parse_json(found.value, source=root.source, error=InvalidInput), root.source, (_KEY,))  # fmt: skip
        table = found or root
        draft.refuse_others(table, ("format_version", "layers"))
        by_format: dict[str, list[str]] = {}
        for name, layer in table.need("layers").members():
            draft.refuse_others(layer, ("format",), harmless=("full_precision_matrix_mult", "params"))  # fmt: skip
            kind = layer.need("format").text()
            if kind not in _FORMATS:
                draft.refuse(layer, f"format {quoted(kind)}: no scheme of weights is like it")
                continue
            try:
                by_format.setdefault(kind, []).extend(modules_of(name))
            except NoGlobError as bad:
                draft.refuse(layer, f"{quoted(name)} {bad}")
        for kind, names in by_format.items():
            draft.rule(kind, op=WEIGHTED, modules=names, weights=_FORMATS[kind])
            draft.exact(table, f"weights of {len(names)} modules: {scheme_words(_FORMATS[kind])}")
        draft.approximate(table, "inputs stay float; ComfyUI computes in eight bits where the processor and `input_scale` of the checkpoint allow it")  # fmt: skip
