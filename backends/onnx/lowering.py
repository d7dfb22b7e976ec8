"""The lowering to ONNX as one flat list of steps, and the writing of the files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from qdx.backends.onnx.external_data import EXTERNAL_DATA
from qdx.backends.onnx.interface import apply_interface
from qdx.backends.onnx.naming import name_constants, name_nodes, order_initializers, strip_metadata
from qdx.backends.onnx.origin import settle_origins
from qdx.backends.onnx.program import simplify, translate
from qdx.backends.onnx.quantization import move_transposes_to_integers
from qdx.backends.onnx.site_tables import make_tables
from qdx.backends.onnx.translations import Forms
from qdx.backends.onnx.weights import bind_weights
from qdx.exporter.errors import QdxError, StorageError

if TYPE_CHECKING:
    from qdx.exporter.graph.ir.graph import Graph
    from qdx.exporter.graph.ir.site import Site

_IR_VERSION = {21: 10, 22: 10, 23: 11, 24: 12}
"""IR version that came with each operator set; older readers refuse a newer one."""


def model_from_graph(
    graph: Graph,
    forms: Forms,
    *,
    storage_dtype: str = "float32",
    fold_transposes: bool = True,
    passes: Sequence[Callable[[ir.Model], None]] = (),
    bound_passes: Sequence[Callable[[ir.Model], None]] = (),
    listed: Callable[[Site], bool] = lambda site: not site.is_residual,
) -> ir.Model:
    """Lowers a graph to an ONNX model whose weights are lazy.

    Args:
        graph: The traced component; its specs name the inputs and outputs.
        forms: The operator forms that the runtime wants.
        storage_dtype: Dtype in which weights are stored; they are computed in float32.
        fold_transposes: Whether a linear weight is stored as `[in, out]`, ready for MatMul.
        passes: The runtime's own rewrites, on the simplified graph before weights are bound.
        bound_passes: Its rewrites that derive weights from weights, once those are bound and named.
        listed: Whether the tables list a site: those that the runtime has kernels of which its audit can tell.

    Returns:
        The model, whose metadata holds the tables of `qdx.backends.onnx.site_tables` and nothing else.

    Raises:
        InternalError: An operator has no translation, or the program and its specs disagree.
    """
    model = translate(graph, forms)
    simplify(model)
    if fold_transposes:
        move_transposes_to_integers(model)
    for rewrite in passes:
        rewrite(model)
    apply_interface(model, graph)
    bind_weights(model, graph, storage_dtype=storage_dtype, fold_transposes=fold_transposes)
    for rewrite in bound_passes:
        rewrite(model)
    name_nodes(model)  # after every pass that makes nodes, before the metadata goes
    name_constants(model)
    order_initializers(model)
    tables = make_tables(model, graph, listed)
    settle_origins(model)
    strip_metadata(model)
    model.metadata_props.update(tables)
    model.graph.name = graph.component
    model.ir_version = _IR_VERSION[forms.opset]
    return model


def write_model(model: ir.Model, path: Path, *, external_data: str) -> None:
    """Writes the model and its external data next to it, one tensor in memory at a time.

    Large tensors begin on a page, so that a runtime can map them; the smallest stay in the model.

    Raises:
        StorageError: The disk refused.
        QdxError: A weight could not be read or stored; as its reader raised it.
    """
    try:
        ir.save(
            model,
            path,
            external_data=external_data,
            size_threshold_bytes=EXTERNAL_DATA.outside_bytes,
            alignment=EXTERNAL_DATA.page_bytes,
            align_threshold=EXTERNAL_DATA.large_bytes,
        )
    except Exception as error:  # serialization wraps what a weight's reader raises
        chain = tuple(_causes(error))
        known = next((cause for cause in chain if isinstance(cause, QdxError)), None)
        if known is not None:
            raise known from None
        refused = next((cause for cause in chain if isinstance(cause, OSError)), None)
        if refused is not None:
            raise StorageError(
                f"`{path.name}`: {refused.strerror or refused}",
                hint="free some space, or choose an output on another disk",
            ) from error
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__
