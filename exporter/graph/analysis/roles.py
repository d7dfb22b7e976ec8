"""Roles of operations: what each is for, told from the flow of data alone.

No name of a module decides. In the order in which they are asked:

* `norm` and `embedding` by the operator; `other` for a product of two activations. Residual additions, which have the
  role `residual`, are none of what follows.
* `attn.q`, `attn.k`, `attn.v`: the weighted operations (linear ones and convolutions) nearest before an
  attention, reached through moves, norms and arithmetic such as rotary embeddings. One that several
  arguments come from is `attn.qkv`, `attn.kv` or `attn.qk_in`.
  The same before a linear attention, two products of activations without a softmax.
* `attn.out`: the first weighted operations behind an attention, reached through moves, norms, gates and
  the sum of several attentions.
* `first`: weighted operations that the main input reaches, floating point, and nothing that another
  weighted operation made of it (see `Flow.main`).
* `last`: the weighted operation nearest before an output, or several that are put together. Behind a residual addition it is the later
  of the two branches, unless that one has a role of its own: a text encoder without a head has no `last`.
* `time_embed`: weighted operations that see one vector per example and nothing of the main input: the
  timestep's and pooled conditioning's own layers, and the modulations that blocks compute from them.
* `ff.in`, `ff.out`: linear operations of one module with an activation between them, gated or not.
* `shortcut`: a linear operation or a convolution with kernel 1 that is added to a longer path from
  the same input.
* `conv` for other convolutions, `other` for the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from torch.fx import Node

from qdx.exporter.graph.analysis.attention import find_linear_attention
from qdx.exporter.graph.analysis.flow import (
    ARITHMETIC,
    MOVES,
    Flow,
    Operation,
    name_of,
    shape,
    words,
)
from qdx.exporter.graph.ir.adapters import is_rotation

if TYPE_CHECKING:
    from qdx.exporter.graph.analysis.attention import Attention, LinearAttention

__all__ = ["find_roles"]

_NORMS: Final = words(
    "batch_norm clamp_min group_norm instance_norm layer_norm linalg_vector_norm mean norm pow reciprocal "
    "rms_norm rsqrt sqrt square var"
)
"""Norms, and what they consist of where they are written out."""
_ACTIVATIONS: Final = words(
    "celu elu exp gelu glu hardsigmoid hardswish leaky_relu mish prelu relu relu_ selu sigmoid silu "
    "silu_ softplus tanh"
)
_ADDITIONS: Final = frozenset(["add", "add_", "sub", "sub_"])
_ATTENTION_INPUTS: Final = {
    frozenset("q"): "attn.q",
    frozenset("k"): "attn.k",
    frozenset("v"): "attn.v",
    frozenset("kv"): "attn.kv",
    frozenset("qk"): "attn.qk_in",
    frozenset("qv"): "attn.qv",
    frozenset("qkv"): "attn.qkv",
}


def find_roles(
    flow: Flow, operations: Sequence[Operation], attention: Sequence[Attention]
) -> dict[Node, str]:
    """Finds the role of every operation, by node."""
    roles: dict[Node, str] = {}
    weighted: dict[Node, Operation] = {}
    for operation in operations:
        if "norm" in operation.name:
            roles[operation.node] = "norm"
        elif operation.name == "embedding":
            roles[operation.node] = "embedding"
        elif (
            operation.name == "matmul"
            and flow.parameter(operation.node.args[operation.weight]) is None
        ):
            roles[operation.node] = "other"
        else:
            weighted[operation.node] = operation
    return _Roles(flow, weighted, attention, roles).all()


@dataclass
class _Roles:
    """The roles of one graph, as far as they are found; the first finder of a node's role wins."""

    flow: Flow
    weighted: dict[Node, Operation]
    attention: Sequence[Attention]
    found: dict[Node, str]
    _mixing: tuple[Attention | LinearAttention, ...] = field(init=False)
    _stops: frozenset[Node] = field(init=False)

    def __post_init__(self) -> None:
        self._mixing = (*self.attention, *find_linear_attention(self.flow))
        products = (node for one in self.attention for node in (one.scores, one.result))
        self._stops = frozenset([*self.weighted, *products])

    def all(self) -> dict[Node, str]:
        self._attention_inputs()
        self._mark(self._attention_outputs(), "attn.out")
        self._mark(self._first(), "first")
        late = self._last()
        self._mark(self._time_embed(), "time_embed")
        self._feed_forward()
        self._mark([node for node in self.weighted if self._is_shortcut(node)], "shortcut")
        for node in late:
            if node in self.weighted and self.found.get(node, "shortcut") == "shortcut":
                self.found[node] = "last"
        for node, operation in self.weighted.items():
            self.found.setdefault(node, "conv" if operation.is_convolution else "other")
        return self.found

    def _mark(self, nodes: Iterable[Node], role: str) -> None:
        for node in nodes:
            self.found.setdefault(node, role)

    def _before(self, node: Node) -> set[Node]:
        """The nearest weighted operations before an argument of attention, itself included."""
        pending, seen, nearest = [node], {node}, set()
        while pending:
            current = pending.pop()
            if current in self._stops:
                if current in self.weighted:
                    nearest.add(current)
                continue
            if _passes(current):
                fresh = [source for source in self.flow.sources(current) if source not in seen]
                seen.update(fresh)
                pending += fresh
        return nearest

    def _attention_inputs(self) -> None:
        letters: dict[Node, set[str]] = {}
        for one in self._mixing:
            for letter, node in (("q", one.query), ("k", one.key), ("v", one.value)):
                for source in self._before(node):
                    letters.setdefault(source, set()).add(letter)
        for node, of in letters.items():
            self.found.setdefault(node, _ATTENTION_INPUTS[frozenset(of)])

    def _attention_outputs(self) -> list[Node]:
        """Walks forward once with the set of nodes that hold nothing but results of attention."""
        results = {one.result for one in self._mixing}
        outputs = []
        for node in self.flow.nodes:
            sources = list(self.flow.sources(node)) if node.op == "call_function" else []
            if node in results or not any(source in results for source in sources):
                continue
            name = name_of(node)
            if node in self.weighted:
                if self.weighted[node].input in results:
                    outputs.append(node)
            elif node in self._stops:
                continue
            elif name in _ADDITIONS:
                if all(s in results or not self.flow.depends[s] for s in sources):
                    results.add(node)
            elif _passes(node):
                results.add(node)
        return outputs

    def _first(self) -> list[Node]:
        """Weighted operations whose input no other one made."""
        main = self.flow.main
        if main is None or not main.meta["val"].is_floating_point():
            return []
        pure, made = {main}, set[Node]()
        first = []
        for node in self.flow.nodes:
            if node.op != "call_function" or not self.flow.depends_on_main(node):
                continue
            if node in self._stops:
                made.add(node)
                if node in self.weighted and self.weighted[node].input in pure:
                    first.append(node)
            elif any(source in made for source in self.flow.sources(node)):
                made.add(node)
            else:
                pure.add(node)
        return first

    def _last(self) -> list[Node]:
        """Marks what is surely last and returns what is last only if it is for nothing else."""
        unsure = []
        pending = [(output, True) for output in self.flow.outputs]
        seen = set(self.flow.outputs)
        while pending:
            node, sure = pending.pop()
            if node in self._stops:
                if sure and node in self.weighted:
                    self.found.setdefault(node, "last")
                unsure.append(node)
                continue
            sources = [s for s in self.flow.sources(node) if self.flow.depends_on_main(s)]
            if not sources or name_of(node) == "embedding":
                continue
            sure = sure and (name_of(node) not in _ADDITIONS or len(sources) == 1)
            if name_of(node) not in MOVES:
                sources = [max(sources, key=self.flow.index.__getitem__)]
            pending += [(source, sure) for source in sources if source not in seen]
            seen.update(sources)
        return unsure

    def _time_embed(self) -> list[Node]:
        main = self.flow.main
        if main is None or not main.meta["val"].is_floating_point() or len(shape(main)) < 3:
            return []
        batch = shape(main)[0]
        return [
            node
            for node, operation in self.weighted.items()
            if self.flow.depends[node]
            and not self.flow.depends_on_main(node)
            and operation.vectors <= batch
        ]

    def _feed_forward(self) -> None:
        """Walks forward with the linear operations that each value comes from, and whether activated."""
        origins: dict[Node, tuple[frozenset[Node], bool]] = {}
        for node in self.flow.nodes:
            operation = self.weighted.get(node)
            if operation is not None:
                if operation.is_convolution:
                    continue
                sources, activated = origins.get(operation.input, (frozenset(), False))
                partners = [source for source in sources if self._same_module(source, node)]
                if activated and partners and node not in self.found:
                    self._mark(partners, "ff.in")
                    self.found[node] = "ff.out"
                elif activated and partners and self.found[node] == "attn.out":
                    self._mark(partners, "ff.in")  # the attention's and this layer share a weight
                origins[node] = frozenset([node]), False
                continue
            name = name_of(node)
            if node in self._stops or name in _ADDITIONS or not _passes(node):
                continue
            before = [origins[s] for s in self.flow.sources(node) if s in origins]
            if before:
                merged = frozenset().union(*(nodes for nodes, _ in before))
                origins[node] = merged, name in _ACTIVATIONS or any(flag for _, flag in before)

    def _same_module(self, one: Node, other: Node) -> bool:
        """Whether two operations lie in a common module below the component itself."""
        top = self.flow.module(one).fqn.partition(".")[0]
        return bool(top) and top == self.flow.module(other).fqn.partition(".")[0]

    def _is_shortcut(self, node: Node) -> bool:
        operation = self.weighted[node]
        if node in self.found or not operation.has_kernel_one:
            return False
        starts = self.flow.unmoved(operation.input)
        current = node
        while len(users := self.flow.users(current)) == 1:
            user = users[0]
            if name_of(user) in _ADDITIONS:
                others = [s for s in self.flow.sources(user) if s is not current]
                return any(self._path_length(other, starts) >= 2 for other in others)
            if name_of(user) not in MOVES:
                return False
            current = user
        return False

    def _path_length(self, end: Node, starts: Sequence[Node]) -> int:
        """Number of weighted operations before a node and behind others; 0 if these do not lead to it."""
        first = min(self.flow.index[start] for start in starts)
        pending, seen, count, meets = [end], {end}, 0, False
        while pending:
            node = pending.pop()
            count += node in self.weighted and self.found.get(node) != "time_embed"
            for source in self.flow.sources(node):
                meets = meets or source in starts
                if self.flow.index[source] > first and source not in seen and source not in starts:
                    seen.add(source)
                    pending.append(source)
        return count if meets else 0


def _passes(node: Node) -> bool:
    """Whether a node leaves its input what it is to the next weighted operation."""
    if is_rotation(node):
        return True
    name = name_of(node)
    return name in MOVES or name in ARITHMETIC or name in _NORMS or name in _ACTIVATIONS
