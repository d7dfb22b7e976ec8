"""A graph to OpenVINO's IR, by way of an ONNX file that lives only while it is converted.

The ONNX reader keeps node names, keeps static shapes and maps the weights from the file; the same
transformations that `ov.convert_model` runs turn the operators into attention, Swish and the like.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from qdx.backends.contract import LoweredFiles
from qdx.backends.onnx.four_bits import widen_four_bits
from qdx.backends.onnx.lowering import model_from_graph, write_model
from qdx.backends.onnx.site_tables import take_tables
from qdx.backends.onnx.translations import Forms
from qdx.backends.openvino.gated_linear import split_gated_linears
from qdx.backends.openvino.group_norm import norms_by_channel
from qdx.backends.openvino.modulated_norms import part_modulated_norms
from qdx.backends.openvino.package import core, openvino
from qdx.backends.openvino.site_tables import read_tables, write_tables
from qdx.backends.openvino.storage import narrow_weights
from qdx.exporter.errors import StorageError

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site

MODEL_FILE = "openvino_model.xml"
DATA_FILE = "openvino_model.bin"

FORMS = Forms(opset=21, group_norm_operator=True)

_GENERATED = re.compile(r"[A-Za-z]\w*_\d+")
"""Names that OpenVINO counts up for the life of a process, so that they differ from run to run."""


def lower(graph: Graph, storage_dtype: str, folder: Path) -> LoweredFiles:
    """Writes the component into `folder`.

    Weights of a smaller storage dtype have a Convert behind them; see `qdx.backends.openvino.storage`.

    Raises:
        StorageError: The disk refused.
        TargetRefusal: The graph has an operator without a form in ONNX, or a weight does not fit the type.
    """
    model = model_from_graph(
        graph,
        FORMS,
        fold_transposes=False,
        bound_passes=(widen_four_bits,),
        listed=_is_product,
    )
    tables = take_tables(model)  # the reader of ONNX files would copy metadata
    ov = openvino()
    with TemporaryDirectory(prefix=".onnx-", dir=folder) as temporary:
        source = Path(temporary) / "model.onnx"
        write_model(model, source, external_data="model.onnx_data")
        converted = _converted(source, graph)
        write_tables(converted, tables)
        try:
            kept = split_gated_linears(converted)
            norms_by_channel(converted)
            part_modulated_norms(converted)
            settle_names(converted)
            kept += narrow_weights(converted, graph, storage_dtype, Path(temporary) / "narrow")
            ov.save_model(converted, folder / MODEL_FILE, compress_to_fp16=False)
        except (OSError, RuntimeError) as error:
            raise StorageError(f"`{MODEL_FILE}`: OpenVINO could not write it: {error}") from error
        del converted, kept  # before the files they map go, and in this order
    return LoweredFiles(folder / MODEL_FILE, (folder / DATA_FILE,))


def _is_product(site: Site) -> bool:
    """Whether a site multiplies: products that lost their names can bear those of norms and additions beside them."""
    return bool(site.ports) and not site.is_residual


def _converted(source: Path, graph: Graph) -> Any:
    from openvino._offline_transformations import apply_moc_transformations

    model = core().read_model(source)
    apply_moc_transformations(model, cf=False, smart_reshape=False)
    for port, spec in zip(
        (*model.inputs, *model.outputs), (*graph.inputs, *graph.outputs), strict=True
    ):
        port.get_tensor().set_names({spec.name})
    model.set_friendly_name(graph.component)
    return model


def settle_names(model: Any) -> None:
    """Counts generated names again from zero, in the model's own order; those in its tables of sites stay."""
    own, parts = read_tables(model, source=MODEL_FILE)
    kept = {*own.names, *parts.names}
    counts: Counter[str] = Counter()
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        if name not in kept and _GENERATED.fullmatch(name):
            kind = node.get_type_name()
            while (free := f"{kind}_{counts[kind]}") in kept:
                counts[kind] += 1
            node.set_friendly_name(free)
            counts[kind] += 1
