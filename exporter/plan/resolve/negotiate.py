"""What a target makes of one operation: the schemes that it can carry out, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Final

from qdx.exporter.dtypes import FLOAT_DTYPES
from qdx.exporter.formats.registry import format_of
from qdx.exporter.graph.ir.site import Site
from qdx.exporter.plan.resolve.feasibility import Offer, PlanTarget, Request, computed_in
from qdx.exporter.plan.resolve.resolution import InputsByTimestep
from qdx.exporter.plan.schema.scheme import Inputs, Weights

__all__ = ["Negotiation", "Outcome", "Wish"]

_MATRIX_RANK: Final = 2
_LEAST_BLOCK: Final = 16
# Where the schemes of several timesteps are carried out differently, the last of these counts.
_BY_WORTH: Final = ("native", "decomposed", "stored", "simulated", "refused")


@dataclass(frozen=True)
class Wish:
    """What rules ask for one site.

    Attributes:
        weights: Scheme of its weight; None without one.
        schemes: Scheme of its inputs in each of the calibration's timestep groups.
        inputs: The same, joined where groups share a scale; None where they stay float.
        weights_if_faster: The weight is only to be quantized where that is faster.
        inputs_if_faster: Likewise its inputs.
        any_granularity: What shares a scale of the weight was left to the target.
    """

    weights: Weights | None
    schemes: Sequence[Inputs]
    inputs: Inputs | InputsByTimestep | None
    weights_if_faster: bool = False
    inputs_if_faster: bool = False
    any_granularity: bool = False


@dataclass(frozen=True)
class Outcome:
    """What becomes of a wish.

    Attributes:
        weights: Scheme of the weight that the target carries out.
        inputs: As in the wish.
        offer: What the target makes of it.
    """

    weights: Weights | None
    inputs: Inputs | InputsByTimestep | None
    offer: Offer


@dataclass(frozen=True)
class Negotiation:
    """One site and one target.

    Attributes:
        site: The operation.
        storage: Type in which its component stores what is not quantized.
        target: The target.
        macs: Multiply-accumulates by which the target judges what is faster.
        mixed: Whether of what computes in sixteen bits only products do, and no shortcuts.
    """

    site: Site
    storage: str
    target: PlanTarget
    macs: int
    mixed: bool = False

    def outcome(self, wish: Wish) -> Outcome:
        """Says what becomes of a wish."""
        wish = replace(wish, weights=self._completed(wish.weights))
        fixed = self._conflict(wish) or self._float(wish)
        weights, offer = (wish.weights, fixed) if fixed else self._negotiated(wish)
        return Outcome(weights, wish.inputs, offer)

    def _conflict(self, wish: Wish) -> Offer | None:
        """What no target could do."""
        weights = wish.weights
        table = None if weights is None else weights.lut_dtype
        if table in FLOAT_DTYPES and table != self.storage:
            return Offer(
                "refused",
                f"a palette of {table} values in a component that stores its float weights as {self.storage}: "
                "floats of a component have one type",
            )
        if weights is not None and not weights.quantized and weights.dtype != self.storage:
            return Offer(
                "refused",
                f"weights in {weights.dtype} in a component that stores its float weights as "
                f"{self.storage}: float weights of a component have one type",
            )
        kinds = {
            (
                scheme.quantized,
                scheme.dtype.startswith(("u", "float8")) and scheme.dtype[0],
                scheme.mode,
                scheme.symmetric,
            )
            for scheme in wish.schemes
        }
        if len(kinds) > 1:
            return Offer(
                "refused",
                "its inputs change at some timesteps between float, signed, unsigned, asymmetric or "
                "dynamic: one graph has one kind of quantizer",
            )
        return None

    def _float(self, wish: Wish) -> Offer | None:
        """What becomes of a site where nothing is quantized."""
        weights = wish.weights
        if wish.inputs is not None or (weights is not None and weights.quantized):
            return None
        widened = self.mixed and (not self.site.macs or self.site.role == "shortcut")
        dtype = "float32" if widened else computed_in(self.target, self.storage)
        computed = f"computed in {dtype}"
        if weights is None:
            return Offer("float", computed)
        return Offer("float", f"stored in {weights.dtype}; {computed}")

    def _negotiated(self, wish: Wish) -> tuple[Weights | None, Offer]:
        """The scheme of the weight that the target can carry out, and what it makes of it.

        A block as long as a channel is a channel, unless the target has blocks alone. Where a target wants whole
        blocks and they do not divide a channel, they are halved until they do: shorter blocks are never less exact. Where
        none does, blocks that no plan asked for give way to channels. A block that is as long as a channel, and for that
        reason no faster, is halved too.
        Formats of floats in blocks have one size.
        """
        asked, reduced = wish.weights, self._reduced
        if asked is not None and asked.group is not None:
            return self._grouped(asked, asked.group, wish)
        if asked is None or asked.block is None or len(self.site.weight_shape) != _MATRIX_RANK:
            return asked, self._offer(asked, wish)
        if not asked.quantized or format_of(asked.dtype).one_block:
            return asked, self._offer(asked, wish)
        if asked.block >= reduced:
            weights = asked.model_copy(update={"granularity": "channel", "block": None})
            offer = self._offer(weights, wish)
            if offer.form != "refused":
                return weights, _because(offer, "one block holds a channel")
        first = offer = self._offer(asked, wish)
        weights = asked
        block: int = asked.block
        while block > _LEAST_BLOCK and (
            (offer.form == "refused" and reduced % block)
            or (offer.slower is not None and reduced == block)
        ):
            block //= 2
            weights = asked.model_copy(update={"block": block})
            offer = self._offer(weights, wish)
        if offer.form == "refused" and wish.any_granularity:
            weights = asked.model_copy(update={"granularity": "channel", "block": None})
            offer = self._offer(weights, wish)
            if offer.form != "refused":
                reason = f"a scale for each channel, because no block divides its {reduced} inputs"
                return weights, _because(offer, reason)
        gains = offer.form != "refused" and (offer.slower is None or first.form == "refused")
        if offer is first or not gains:
            return asked, first
        reason = (
            f"blocks of {block}, because {asked.block} does not divide its {reduced} inputs"
            if reduced % asked.block
            else f"blocks of {block}, because one of {asked.block} holds a channel"
        )
        return weights, _because(offer, reason)

    def _grouped(self, asked: Weights, group: int, wish: Wish) -> tuple[Weights, Offer]:
        """The same for groups of channels: those of all channels are the tensor, and others divide them.

        Smaller groups are never less exact.
        """
        channels = self._channels
        if group >= channels:
            weights = asked.model_copy(update={"granularity": "tensor", "group": None})
            return weights, _because(self._offer(weights, wish), "one group holds all channels")
        fitting = gcd(group, channels)  # sizes are powers of two, so it is one of them
        weights = asked.model_copy(update={"group": fitting})
        offer = self._offer(weights, wish)
        if fitting == group or offer.form == "refused":
            return weights, offer
        reason = f"groups of {fitting}, because {group} does not divide its {channels} channels"
        return weights, _because(offer, reason)

    def _completed(self, weights: Weights | None) -> Weights | None:
        """The scheme with what the component decides written out, such as the type of a palette's values."""
        if weights is None or not weights.quantized:
            return weights
        missing = format_of(weights.dtype).completed(weights, self.storage)
        return weights.model_copy(update=missing) if missing else weights

    @property
    def _channels(self) -> int:
        """Number of output channels of the weight; 0 without one."""
        return self.site.weight_shape[self.site.output_axis] if self.site.weight_shape else 0

    @property
    def _reduced(self) -> int:
        """Size of the dimension that the operation reduces and blocks divide."""
        shape = self.site.weight_shape
        return shape[1] if len(shape) > 1 else 0

    def _offer(self, weights: Weights | None, wish: Wish) -> Offer:
        by_timestep = isinstance(wish.inputs, tuple)
        schemes = wish.inputs if isinstance(wish.inputs, tuple) else ((range(0), wish.inputs),)
        requests = [
            Request(
                self.site.op,
                weights,
                scheme,
                by_timestep,
                self._reduced,
                self.macs,
                self.site.head,
                self.storage,
                self.site.keys,
                self.site.kernel,
            )
            for _, scheme in schemes
        ]
        offers = [(self.target.offer(request), request) for request in requests]
        offer, request = max(offers, key=lambda pair: _BY_WORTH.index(pair[0].form))
        if offer.form == "refused":
            return replace(offer, why=f"{request}: {offer.why}")
        return offer


def _because(offer: Offer, reason: str) -> Offer:
    return replace(offer, why=f"{offer.why}; {reason}")
