"""A site: one operation that a plan can address. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any, Final

__all__ = ["ATTENTION_PRODUCTS", "OPERATIONS", "OUTPUT", "ROLES", "STAGES", "Site"]

OUTPUT = "output"
"""The port of every site's result."""

ATTENTION_PRODUCTS: Final = frozenset({"qk", "pv"})
"""The operations of queries with keys, and of probabilities with values."""

ROLES: Final = (
    "first",
    "last",
    "conv",
    "shortcut",
    "time_embed",
    "attn.q",
    "attn.k",
    "attn.v",
    "attn.qkv",
    "attn.kv",
    "attn.qk_in",
    "attn.qv",
    "attn.qk",
    "attn.pv",
    "attn.out",
    "ff.in",
    "ff.out",
    "norm",
    "embedding",
    "residual",
    "other",
)
"""All that `Site.role` can be."""

OPERATIONS: Final = (
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "linear",
    "matmul",
    "qk",
    "pv",
    "add",
    "embedding",
    "group_norm",
    "layer_norm",
    "rms_norm",
    "batch_norm",
    "instance_norm",
)
"""All that `Site.op` can be."""

STAGES: Final = ("down", "mid", "up", "block")
"""What `Site.stage` begins with; all but `mid` are numbered, such as `down.0`."""


@dataclass(frozen=True)
class Site:
    """One operation of a graph.

    Attributes:
        key: Unique in the graph and the same on every target: the module's fully qualified name, with
            `#2` for its second call; `<attention>.qk` and `<attention>.pv` for the products of attention,
            `<module>.add` for residual additions.
        fqn: Fully qualified name of the module that the operation belongs to.
        node: Name of the operation's node in the graph's program.
        op: `conv2d`, `linear`, `qk`, `pv`, `add`, `group_norm` and the like.
        role: What it is for: `first`, `last`, `conv`, `shortcut`, `time_embed`; `attn.q`, `attn.k`,
            `attn.v`, and where one makes several of them `attn.qkv`, `attn.kv`, `attn.qk_in`,
            `attn.qv`; `attn.qk` and `attn.pv` for the products, `attn.out`; `ff.in`, `ff.out`,
            `norm`, `embedding`, `residual`, `other`.
        stage: Where it stands: `down.0`, `mid`, `up.2`, `block.17`; empty outside of all stages.
        macs: Multiply-accumulates of one call; 0 where there are none to speak of.
        weight: Fully qualified name of its weight parameter; None without one.
        weight_shape: The weight's shape, empty without one.
        ports: Argument index of every quantizable input by name: `input` for weighted operations,
            `query` and `key`, `probs` and `value` for the products of attention, `input` and `other`
            for other products of two activations, `skip` for residual additions.
        channel_axis: Dimension of the first port along which the operation reduces: 1 for a
            convolution, -1 for a linear operation.
        head: Channels of a head of attention, for its two products; 0 for other operations.
        keys: Keys that each of its queries meets, in the traced call; 0 for other operations.
        product: For residual additions, `node` of the weighted operation that its skip meets; empty for others.
        source: For operations with a weight, name of the node that makes their input; empty for others.
        input_elements: Of that input, in the traced call.
    """

    key: str
    fqn: str
    node: str
    op: str
    role: str
    stage: str
    macs: int = 0
    weight: str | None = None
    weight_shape: tuple[int, ...] = ()
    ports: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    channel_axis: int = -1
    head: int = 0
    keys: int = 0
    product: str = ""
    source: str = ""
    input_elements: int = 0

    @property
    def weight_elements(self) -> int:
        """Number of weight elements, biases not counted."""
        return prod(self.weight_shape) if self.weight is not None else 0

    @property
    def kernel(self) -> int:
        """How many numbers a convolution reads of each channel; 0 for other operations."""
        return prod(self.weight_shape[2:]) if self.op.startswith("conv") and self.weight else 0

    @property
    def output_axis(self) -> int:
        """Dimension of the weight with output channels: the second of transposed convolutions and stored matrices."""
        return 1 if self.op == "matmul" or "transpose" in self.op else 0

    @property
    def is_attention_product(self) -> bool:
        """Whether it is one of the two products of attention, which can be quantized once that is opened."""
        return self.op in ATTENTION_PRODUCTS

    @property
    def is_residual(self) -> bool:
        """Whether it is a residual addition."""
        return self.op == "add"

    @property
    def is_product(self) -> bool:
        """Whether it multiplies two activations; `matmul` may also have a stored matrix."""
        return self.is_attention_product or (self.op == "matmul" and self.weight is None)

    def to_json(self) -> dict[str, Any]:
        """The site as plain JSON data."""
        return {
            "key": self.key,
            "op": self.op,
            "role": self.role,
            "stage": self.stage,
            "macs": self.macs,
            "weight": self.weight,
            "weight_shape": list(self.weight_shape),
        }
