"""What an engine was compiled for, product by product and attention by attention, without a device to run it.

The builder's log names the ONNX nodes of every compiled layer, and nodes of our files have names of their own: so each
product of a site is found again by name. One that is in no layer is an error, as is a layer of an unknown kind.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from qdx.backends.contract import KernelExecution
from qdx.backends.onnx.site_tables import PRODUCTS, read_tables
from qdx.backends.tensorrt.emulate.audit import quantized_branch
from qdx.backends.tensorrt.engine.attentions import Attention, attentions_of
from qdx.backends.tensorrt.engine.layer_index import Layers, dequantizer_of
from qdx.backends.tensorrt.engine.raw_sums import overflows
from qdx.backends.tensorrt.engine.ways import (
    KNOWN_KINDS,
    NARROW,
    computing,
    float_type,
    is_attention_kernel,
    narrow_type,
    way_of,
    worst,
)
from qdx.backends.tensorrt.lint.products import Operand, operand
from qdx.exporter.errors import InvalidBundle, quoted

if TYPE_CHECKING:
    import onnx_ir as ir

    from qdx.backends.contract import Way
    from qdx.backends.site_table import SiteTable
    from qdx.backends.tensorrt.engine.layer_log import LayerLog, LoggedLayer

__all__ = ["CompiledAttention", "CompiledModel", "CompiledProduct", "compiled_model"]

_SHOWN: Final = 5


@dataclass(frozen=True)
class CompiledProduct:
    """One product of the model, or one addition of a quantized branch.

    Attributes:
        node: Its name in the model.
        op: Its operator there.
        sites: Keys of the sites that it computes.
        quantized: Whether the file quantizes anything that it multiplies.
        way: In which way it was compiled.
        precision: The type that it multiplies in.
        layers: That multiply, of every profile.
        overflows: Whether its raw sum of products is kept in float16, to be scaled later: see `raw_sums`.
    """

    node: str
    op: str
    sites: tuple[str, ...]
    quantized: bool
    way: Way
    precision: str
    layers: tuple[LoggedLayer, ...] = field(repr=False)
    overflows: bool = False


@dataclass(frozen=True)
class CompiledAttention:
    """One attention of the model.

    Attributes:
        name: Of the module that it belongs to.
        fused: Whether one kernel computes it, in every profile.
        kernel: What computes its softmax.
    """

    name: str
    fused: bool
    kernel: str


@dataclass(frozen=True)
class CompiledModel:
    """What the builder's log says of one engine.

    Attributes:
        products: Products of sites, in the model's order.
        attentions: Attentions, in the model's order.
        log: The whole log.
    """

    products: tuple[CompiledProduct, ...]
    attentions: tuple[CompiledAttention, ...]
    log: LayerLog = field(repr=False)

    @property
    def kinds(self) -> dict[str, int]:
        """Number of layers by kind, the most frequent first."""
        return dict(Counter(layer.kind for layer in self.log.layers).most_common())

    @property
    def overflowing(self) -> tuple[str, ...]:
        """Keys of the sites whose raw sums overflow."""
        return tuple(key for one in self.products if one.overflows for key in one.sites)

    def executions(self) -> tuple[KernelExecution, ...]:
        """An entry for each layer, in order. Sites are with what multiplies; one layer may compute several."""
        by_layer: dict[int, list[CompiledProduct]] = defaultdict(list)
        for product in self.products:
            for layer in product.layers:
                by_layer[layer.line].append(product)
        return tuple(
            execution
            for layer in self.log.layers
            for execution in _executions(layer, by_layer.get(layer.line, ()))
        )


def compiled_model(model: ir.Model, log: LayerLog, *, source: str) -> CompiledModel:
    """Joins a model with what its builder says of the engine.

    Args:
        model: That the engine was built from, with its table of sites; weights are not read.
        log: Of the build.
        source: The log's file, for messages.

    Raises:
        InvalidBundle: The model has no table of sites, a layer has an unknown kind, or a product or an attention is in
            no layer, or in one whose operands have no meaning that is known; all of them are counted.
    """
    table, _ = read_tables(model, source=source)
    unknown = sorted({one.kind for one in log.layers if one.kind not in KNOWN_KINDS})
    if unknown:
        raise InvalidBundle(
            f"{quoted(source)}: layers of unknown kinds: {', '.join(map(quoted, unknown))}",
            hint="what they compute cannot be told; audit this engine on its device, or report the kinds",
        )
    layers = Layers(log)
    found = attentions_of(model)
    problems: list[str] = []
    products = tuple(_products(model, table, layers, found, problems))
    attentions = tuple(_attentions(found, layers, problems))
    if problems:
        more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InvalidBundle(
            f"{quoted(source)}: does not account for {len(problems)} operations of the model: "
            f"{'; '.join(problems[:_SHOWN])}{more}",
            hint="the log is of another model or of a builder that is not known here; build the engine again",
        )
    return CompiledModel(products, attentions, log)


def _products(
    model: ir.Model,
    table: SiteTable,
    known: Layers,
    attentions: Sequence[Attention],
    problems: list[str],
) -> Iterator[CompiledProduct]:
    """Products of sites; what is wrong with one is added to `problems`."""
    within = {node.name: one for one in attentions for node in (one.first, one.second)}
    for node in model.graph:
        name = str(node.name)
        if node.op_type == "Add" and table.sites(name) and quantized_branch(node) is not None:
            found = _addition(name, table.sites(name), known.get(name))
            if found is None:
                problems.append(f"{quoted(name)} is in no layer")
            else:
                yield found
        if node.op_type not in PRODUCTS or not table.sites(name):
            continue
        layers = computing(known.get(name))
        if not layers:
            problems.append(f"{quoted(name)} is in no layer")
            continue
        factors = (operand(node.inputs[0]), operand(node.inputs[1]))
        ways: list[Way] = []
        for layer in layers:
            if is_attention_kernel(layer) and name in within:
                way: Way | None = _in_attention(layer, within[name], factors)
            else:
                way = _way(layer, factors, known)
            if way is None:
                problems.append(f"{quoted(name)}: {_reads(layer)}")
                break
            ways.append(way)
        else:
            way = worst(ways)
            yield CompiledProduct(
                name,
                node.op_type,
                table.sites(name),
                any(one.narrow_type is not None for one in factors),
                way,
                _precision(way, layers[ways.index(way)]),
                layers,
                any(overflows(layer, factors, known) for layer in layers),
            )


def _addition(
    node: str, sites: tuple[str, ...], layers: Sequence[LoggedLayer]
) -> CompiledProduct | None:
    """An addition of which one branch is quantized: native where what computes it reads the narrow numbers.

    Most often the quantizer is compiled into the same kernel, which then reads floats and rounds them.
    """
    if not layers:
        return None
    narrow = [narrow_type(layer.inputs) for layer in layers]
    way: Way = "float" if None in narrow else "native"
    precision = float_type(layers[0]) if way == "float" else str(narrow[0])
    return CompiledProduct(node, "Add", sites, True, way, precision, tuple(layers))


def _way(
    layer: LoggedLayer,
    factors: tuple[Operand, Operand],
    known: Layers,
) -> Way | None:
    quantized = [one for one in factors if one.narrow_type is not None]
    if not quantized:
        return "float"
    weights = [one for one in quantized if one.constant]
    elsewhere = any(
        other.line != layer.line for one in weights for other in known.get(dequantizer_of(one))
    )
    # Not every such layer names the node: of merged products, for one, it names none.
    made = elsewhere or any(known.dequantized(one) for one in layer.inputs)
    return way_of(
        layer,
        inputs_quantized=len(quantized) == len(factors),
        weight_quantized=bool(weights),
        made=made,
    )


def _in_attention(
    layer: LoggedLayer, attention: Attention, factors: tuple[Operand, Operand]
) -> Way:
    """A product of a fused attention is native where all that its kernel reads for it from outside is narrow.

    That is both factors of the first product and one of the second, whose other factor never leaves the kernel.
    """
    if any(one.narrow_type is None for one in factors):
        return "float"
    read = sum(one.dtype in NARROW for one in layer.inputs)
    wanted = sum(
        count
        for node, count in ((attention.first, 2), (attention.second, 1))
        if all(operand(value).narrow_type is not None for value in node.inputs[:2])
    )
    return "native" if read >= wanted else "float"


def _attentions(
    found: Sequence[Attention],
    known: Layers,
    problems: list[str],
) -> Iterator[CompiledAttention]:
    for one in found:
        layers = known.get(str(one.softmax.name))
        if not layers:
            problems.append(f"{quoted(str(one.softmax.name))} is in no layer")
            continue
        apart = next((layer for layer in layers if not is_attention_kernel(layer)), None)
        kernel = layers[0] if apart is None else apart
        yield CompiledAttention(one.name, apart is None, _kernel(kernel))


def _executions(
    layer: LoggedLayer, products: Sequence[CompiledProduct]
) -> Iterator[KernelExecution]:
    groups: dict[tuple[Way, str], list[str]] = {}
    for product in products:
        groups.setdefault((product.way, product.precision), []).extend(product.sites)
    for (way, precision), sites in groups.items():
        keys = tuple(dict.fromkeys(sites))
        yield KernelExecution(layer.name, _kernel(layer), precision, keys, compiled=way)
    if not groups:
        precision = narrow_type(layer.inputs) or float_type(layer)
        yield KernelExecution(layer.name, _kernel(layer), precision)


def _precision(way: Way, layer: LoggedLayer) -> str:
    narrow = narrow_type([*layer.inputs, *layer.constants]) if way == "native" else None
    return narrow or float_type(layer)


def _kernel(layer: LoggedLayer) -> str:
    """A layer's kind; of generated code what it computes, without the digest of its source."""
    name = layer.tactic.rpartition("_0x")[0].removeprefix("__myl_").strip("_")
    return f"{layer.kind} {name}" if layer.kind == "kgen" and name else layer.kind


def _reads(layer: LoggedLayer) -> str:
    read = ", ".join(one.dtype for one in layer.inputs)
    constants = ", ".join(one.dtype for one in layer.constants)
    return f"{quoted(layer.kind)} reads {read or 'nothing'} and the constants {constants or 'none'}"
