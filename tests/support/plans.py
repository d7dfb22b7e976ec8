"""Plans and sites for tests."""

from __future__ import annotations

from types import MappingProxyType

from qdx.exporter.graph.ir.site import Site
from qdx.exporter.plan import Choices, plan_from_json

GATES = {"component": {"sqnr_db_min": 50}, "pipeline": {"psnr_db_min": 40, "ssim_min": 0.98}}
INT8 = {"dtype": "int8"}
KINDS = {
    "unet": "denoiser",
    "transformer": "denoiser",
    "vae": "decoder",
    "text_encoder": "text_encoder",
}
"""What the components of the tests do."""
CHOICES = Choices.model_validate({
    "float_dtype": {"value": "float32", "why": "of the test"},
    "mixed_precision": {"value": False, "why": "of the test"},
    "weights": [{"granularity": "channel", "symmetric": True, "why": "of the test"}],
    "inputs": [{"symmetric": True, "when": "always", "why": "of the test"}],
    "gates": [{"component_sqnr_db_min": 1, "lowering_sqnr_db_min": 2, "why": "of the test"}],
})  # fmt: skip
"""What a target of a test chooses."""


def plan_of(*rules, **extras):
    """A plan of some rules as JSON data."""
    value = {"schema": "qdx.plan/1", "rules": list(rules), "gates": GATES, **extras}
    return plan_from_json(value, source="p.json")


def site(key, op="linear", role="other", stage="", shape=(64, 64), macs=1000, weight=""):
    """A site; products of attention have two inputs and no weight, norms no inputs."""
    ports = {
        "qk": {"query": 0, "key": 1},
        "pv": {"probs": 0, "value": 1},
        "group_norm": {},
        "embedding": {},
    }
    weightless = op in {"qk", "pv"}
    return Site(
        key=key,
        fqn=key.split("#")[0],
        node=key.replace(".", "_"),
        op=op,
        role=role,
        stage=stage,
        macs=macs,
        weight=None if weightless else weight or f"{key.split('#')[0]}.weight",
        weight_shape=() if weightless else shape,
        ports=MappingProxyType(ports.get(op, {"input": 0})),
        channel_axis=1 if op == "conv2d" else -1,
    )


UNET = (
    site("conv_in", "conv2d", "first", shape=(64, 4, 3, 3), macs=100),
    site("time_embedding.linear_1", role="time_embed", macs=1),
    site("down_blocks.0.norm", "group_norm", "norm", "down.0", shape=(64,), macs=0),
    site("down_blocks.0.conv", "conv2d", "conv", "down.0", shape=(64, 64, 3, 3), macs=5000),
    site("down_blocks.0.attn.to_q", role="attn.q", stage="down.0"),
    site("down_blocks.0.attn.qk", "qk", "attn.qk", "down.0"),
    site("down_blocks.0.attn.pv", "pv", "attn.pv", "down.0"),
    site("mid_block.ff", role="ff.in", stage="mid", shape=(256, 64)),
    site("conv_out", "conv2d", "last", shape=(4, 64, 3, 3), macs=100),
)
VAE = (site("conv", "conv2d", "conv", shape=(8, 8, 3, 3)),)
SITES = {"unet.forward": UNET, "vae.decode": VAE}
