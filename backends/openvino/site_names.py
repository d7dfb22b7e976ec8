"""Which operation of the IR computes which site, written into the IR for the audit to read.

Names of operations follow torch modules, and a module can compute several sites. So the map is made from the
graph while it is lowered and stored in the IR's `rt_info`, which readers ignore.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from qdx.exporter.errors import InvalidBundle
from qdx.exporter.files import dump_json, parse_json
from qdx.exporter.graph.analysis.sites import sites

if TYPE_CHECKING:
    import onnx_ir as ir

    from qdx.exporter.graph.ir.graph import Graph

__all__ = ["SiteNames", "read_site_names", "site_names", "write_site_names"]

_COMPUTES: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_ON_THE_WAY: Final = frozenset({"Cast", "DequantizeLinear", "Reshape", "Transpose"})
_PATH: Final = ["qdx", "sites"]


@dataclass(frozen=True)
class SiteNames:
    """Keys of a graph's sites by the names that compiled operations may keep.

    Attributes:
        operations: By the operation's own name, which stays when it is fused.
        parts: By the name of the addition of its bias and the names of its weight: enough to tell an
            operation that lost its own, but other operations can have them too.
    """

    operations: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)


def site_names(graph: Graph, model: ir.Model) -> SiteNames:
    """Names of the operations that compute a graph's sites.

    The graph and the model list the operations of a module in the same order, that of execution. A module
    whose operations are not as many as its sites, because the lowering joined some, is left out.

    Args:
        graph: The graph.
        model: What it was lowered to, nodes named after modules.
    """
    operations: dict[str, list[ir.Node]] = defaultdict(list)
    for node in model.graph:
        if node.op_type in _COMPUTES:
            operations[_path(node)].append(node)
    keys: dict[str, list[str]] = defaultdict(list)
    for site in sites(graph):
        if site.ports and not site.is_residual:
            keys[site.fqn].append(site.key)
    own: dict[str, str] = {}
    parts: dict[str, set[str]] = defaultdict(set)
    for path, nodes in operations.items():
        if len(nodes) != len(keys[path]):
            continue
        for node, key in zip(nodes, keys[path], strict=True):
            own[str(node.name)] = key
            for name in (*_bias_names(node), *_weight_names(node)):
                parts[name].add(key)
    return SiteNames(own, {name: of.pop() for name, of in parts.items() if len(of) == 1})


def _path(node: ir.Node) -> str:
    return str(node.name).rpartition("/")[0]


def _bias_names(node: ir.Node) -> list[str]:
    users = [use.node for use in node.outputs[0].uses()]
    return [
        str(user.name)
        for user in users
        if len(users) == 1 and user.op_type == "Add" and _path(user) == _path(node)
    ]


def _weight_names(node: ir.Node) -> list[str]:
    """Names from the second input back to the initializer; none where there is no initializer."""
    names: list[str] = []
    value = node.inputs[1]
    while value is not None and not value.is_initializer():
        producer = value.producer()
        if producer is None or producer.op_type not in _ON_THE_WAY:
            return []
        names.append(str(producer.name))
        value = producer.inputs[0]
    return [] if value is None else [*names, str(value.name)]


def write_site_names(model: Any, names: SiteNames) -> None:
    """Stores them in the IR; nothing where there are none."""
    if names.operations:
        model.set_rt_info(dump_json(asdict(names)).decode().strip(), _PATH)


def read_site_names(model: Any) -> SiteNames:
    """Those that the IR has.

    Raises:
        InvalidBundle: What is stored there is something else.
    """
    if not model.has_rt_info(_PATH):
        return SiteNames()
    stored = model.get_rt_info(_PATH)
    text = str(stored.value if hasattr(stored, "value") else stored)
    data = parse_json(text, source="rt_info of the IR", error=InvalidBundle)
    return SiteNames(_names(data, "operations"), _names(data, "parts"))


def _names(data: Mapping[str, Any], part: str) -> dict[str, str]:
    names = data.get(part)
    if not isinstance(names, dict) or not all(isinstance(key, str) for key in names.values()):
        raise InvalidBundle(
            f"rt_info of the IR: no names of {part}, expected keys of sites by name"
        )
    return names
