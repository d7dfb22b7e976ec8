"""What TensorRT-RTX refuses, in our words: the operations of the plan instead of the builder's names of its own steps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import onnx_ir as ir

from qdx.backends.onnx.site_tables import read_tables
from qdx.backends.site_table import SiteTable
from qdx.backends.tensorrt.flavour import Flavour
from qdx.exporter.errors import InvalidBundle, Refusal
from qdx.targets.profile import list_targets, load_target

__all__ = ["Blame", "blame"]

_TYPES: Final = re.compile(
    r"Cannot compile for target\(s\) (?P<devices>[a-z0-9, ]+), because the model contains HW-specific "
    r"datatypes: (?P<types>[a-z0-9_]+(?:, [a-z0-9_]+)*)"
)
_OPERATION: Final = re.compile(r"Cannot compile operation '(?P<name>[^']+)'")
_STEP: Final = re.compile(r"_U[0-9]+$")
"""What the builder puts behind the name of a node."""
_WORDS: Final[Mapping[str, tuple[ir.DataType, tuple[int, int]]]] = MappingProxyType(
    {
        "b16": (ir.DataType.BFLOAT16, (8, 0)),
        "int4": (ir.DataType.INT4, (8, 0)),
        "fp8_e4m3": (ir.DataType.FLOAT8E4M3FN, (8, 9)),
        "fp4_e2m1": (ir.DataType.FLOAT4E2M1, (12, 0)),
    }
)
"""The builder's words for types that not all devices have: the type, and the least compute capability that has it."""
_NO_DRIVER: Final = "catchCudaError"
_STEPS_LIMIT: Final = 8
"""How far behind a quantizer its operation stands at most."""


class Blame:
    """What was refused.

    Attributes:
        refusals: By the operation, where the builder or the parser tells one; otherwise of the file.
        hint: The next step; None where nothing is known.
    """

    def __init__(self, refusals: Iterable[Refusal], hint: str | None) -> None:
        self.refusals = tuple(refusals)
        self.hint = hint


def blame(refusals: Iterable[Refusal], model: ir.Model, where: str, flavour: Flavour) -> Blame:
    """Names the operations of a model that refusals are about.

    Args:
        refusals: Of the parser, by the node's name, or of the builder, by any other.
        model: That was refused.
        where: The component, for messages.
        flavour: What refuses.
    """
    names = _Names(model, where)
    # Whatever a build fails of, without a driver the log ends with that there is none.
    given = tuple(refusals)
    told = [one for one in given if _NO_DRIVER not in one.reason] or given
    found: list[Refusal] = []
    hint = None
    for one in told:
        types, operation = _TYPES.search(one.reason), _OPERATION.search(one.reason)
        if types is not None:
            kinds = types["types"].split(", ")
            found += _of_types(names, kinds, types["devices"])
            hint = _other_target(kinds, flavour) or hint
        elif operation is not None:
            name = _STEP.sub("", operation["name"])
            found.append(Refusal(names.of(name), one.reason, one.hint))
        else:
            found.append(Refusal(names.of(one.site), one.reason, one.hint))
    return Blame(found, hint)


class _Names:
    """The operations of a model by their keys in the plan."""

    def __init__(self, model: ir.Model, where: str) -> None:
        self._where = where
        self.nodes = {str(node.name): node for node in model.graph.all_nodes() if node.name}
        try:
            self._sites, self._parts = read_tables(model, source=where)
        except InvalidBundle:  # a file that qdx did not write
            self._sites = self._parts = SiteTable({})

    def of(self, name: str) -> str:
        """What a node is for, with its own name: `unet: mid_block.attn.to_q (node mid_block.attn.to_q/MatMul)`."""
        node = self.nodes.get(name)
        if node is None:
            return self._where
        keys = self.keys(node)
        shown = f"{', '.join(keys)} (node {name})" if keys else f"node {name}"
        return f"{self._where}: {shown}"

    def keys(self, node: ir.Node) -> tuple[str, ...]:
        """Keys of the sites that a node computes, or whose inputs it prepares."""
        seen, front = {node}, [node]
        for _ in range(_STEPS_LIMIT):
            found = [key for one in front for key in self._own(one)]
            if found or not front:
                return tuple(dict.fromkeys(found))
            behind = (user for one in front for out in one.outputs for user, _ in out.uses())
            front = [user for user in dict.fromkeys(behind) if user not in seen]
            seen.update(front)
        return ()

    def _own(self, node: ir.Node) -> tuple[str, ...]:
        name = str(node.name)
        return self._sites.sites(name) or self._parts.sites(name)


def _of_types(names: _Names, kinds: Iterable[str], devices: str) -> Iterator[Refusal]:
    """A refusal for each operation that has a type which devices have not."""
    for kind in kinds:
        reason = f"needs {kind}, which {devices} have not"
        wanted = _WORDS[kind][0] if kind in _WORDS else None
        nodes = [node for node in names.nodes.values() if _has(node, wanted)]
        keys = dict.fromkeys(names.of(str(node.name)) for node in nodes)
        yield from (Refusal(key, reason) for key in keys)
        if not keys:
            yield Refusal(names.of(""), reason)


def _has(node: ir.Node, dtype: ir.DataType | None) -> bool:
    """Whether a node reads a type."""
    return dtype is not None and any(one is not None and one.dtype == dtype for one in node.inputs)


def _other_target(kinds: Iterable[str], flavour: Flavour) -> str | None:
    """Which targets have the types that one has not."""
    least = max((_WORDS[kind][1] for kind in kinds if kind in _WORDS), default=None)
    if least is None:
        return None
    profiles = [load_target(name) for name in list_targets()]
    fit = [
        one.name
        for one in profiles
        if one.runtime == flavour.name and (one.compute_capability or (0, 0)) >= least
    ]
    return f"export for {' or '.join(fit)}, whose devices have it" if fit else None
