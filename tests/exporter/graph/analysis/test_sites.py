"""Sites of the tiny families and of small modules: keys, ports, weights, roles, stages and multiply-accumulates."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.execute.interpreter import run
from qdx.exporter.graph.ir.site import Site
from qdx.exporter.graph.rewrites.open_attention import open_attention
from tests.support.tiny import FAMILIES
from tests.support.tiny_graphs import graphs_of
from tests.support.tracing import Block, block_inputs, graph_of

FAST = {"sd", "sd3", "flux", "dit", "pixart", "sdxl"}
ROLES = {
    *("first", "last", "conv", "shortcut", "time_embed", "norm", "embedding", "other"),
    *("attn.q", "attn.k", "attn.v", "attn.kv", "attn.qkv", "attn.qk", "attn.pv", "attn.out"),
    *("ff.in", "ff.out", "residual"),
}


def by_key(family: str, where: str) -> dict[str, Site]:
    return {site.key: site for site in sites(graphs_of(family)[where])}


@pytest.mark.parametrize(
    "family", [f if f in FAST else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES]
)
def test_every_family_has_sites_with_unique_keys_and_known_roles(family: str) -> None:
    for where, graph in graphs_of(family).items():
        found = sites(graph)
        nodes = {node.name: node for node in graph.program.graph.nodes}
        assert len({site.key for site in found}) == len(found), where
        for site in found:
            assert site.role in ROLES, (where, site)
            assert all(index < len(nodes[site.node].args) for index in site.ports.values())
            if site.weight is not None:
                assert graph.weights[site.weight].shape == site.weight_shape, (where, site)
            if site.op in {"linear", "qk", "pv"} or site.op.startswith("conv"):
                assert site.macs > 0, (where, site)


@pytest.mark.parametrize(
    ("family", "where", "pattern", "role", "stage"),
    [
        ("sd", "unet.forward", "conv_in", "first", ""),
        ("sd", "unet.forward", "conv_out", "last", ""),
        ("sd", "unet.forward", "time_embedding.linear_[12]", "time_embed", ""),
        ("sd", "unet.forward", "*.time_emb_proj", "time_embed", "*"),
        ("sd", "unet.forward", "*.attn?.to_q", "attn.q", "*"),
        ("sd", "unet.forward", "*.attn?.to_k", "attn.k", "*"),
        ("sd", "unet.forward", "*.attn?.to_v", "attn.v", "*"),
        ("sd", "unet.forward", "*.attn?.to_out.0", "attn.out", "*"),
        ("sd", "unet.forward", "*.attn?.qk", "attn.qk", "*"),
        ("sd", "unet.forward", "*.attn?.pv", "attn.pv", "*"),
        ("sd", "unet.forward", "*.ff.net.0.proj", "ff.in", "*"),
        ("sd", "unet.forward", "*.ff.net.2", "ff.out", "*"),
        ("sd", "unet.forward", "*.conv_shortcut", "shortcut", "*"),
        ("sd", "unet.forward", "*.resnets.?.conv?", "conv", "*"),
        ("sd", "unet.forward", "*.norm?", "norm", "*"),
        ("sd", "unet.forward", "down_blocks.0.*", "*", "down.0"),
        ("sd", "unet.forward", "mid_block.*", "*", "mid"),
        ("sd", "unet.forward", "up_blocks.1.*", "*", "up.1"),
        ("sd", "vae.decode", "decoder.mid_block.*", "*", "mid"),
        ("sd", "vae.decode", "decoder.up_blocks.2.*", "*", "up.2"),
        ("sd", "vae.decode", "decoder.conv_out", "last", ""),
        ("sd", "vae.decode", "decoder.up_blocks.2.resnets.0.conv_shortcut", "shortcut", "up.2"),
        ("sd", "text_encoder.forward", "*.token_embedding", "embedding", ""),
        ("sd", "text_encoder.forward", "*.layers.1.mlp.fc1", "ff.in", "block.1"),
        ("sd", "text_encoder.forward", "*.layers.1.mlp.fc2", "ff.out", "block.1"),
        ("sd", "text_encoder.forward", "*.layers.0.self_attn.out_proj", "attn.out", "block.0"),
        ("sdxl", "unet.forward", "add_embedding.linear_?", "time_embed", ""),
        ("sdxl", "unet.forward", "conv_out", "last", ""),
        ("sdxl", "text_encoder_2.forward", "text_projection", "last", ""),
        ("sd3", "transformer.forward", "pos_embed.proj", "first", ""),
        ("sd3", "transformer.forward", "*.add_k_proj", "attn.k", "block.?"),
        ("sd3", "transformer.forward", "*.to_add_out", "attn.out", "block.0"),
        ("sd3", "transformer.forward", "*.norm1*.linear", "time_embed", "block.?"),
        ("sd3", "transformer.forward", "norm_out.linear", "time_embed", ""),
        ("sd3", "transformer.forward", "proj_out", "last", ""),
        ("dit", "transformer.forward", "*.ff.net.0.proj", "ff.in", "block.?"),
        ("dit", "transformer.forward", "proj_out_1", "time_embed", ""),
        ("dit", "transformer.forward", "proj_out_2", "last", ""),
        ("pixart", "transformer.forward", "adaln_single.linear", "time_embed", ""),
        ("pixart", "transformer.forward", "caption_projection.linear_?", "ff.*", ""),
        ("flux", "transformer.forward", "x_embedder", "first", ""),
        ("flux", "transformer.forward", "context_embedder", "other", ""),
        ("flux", "transformer.forward", "time_text_embed.*", "time_embed", ""),
        ("flux", "transformer.forward", "single_*.0.proj_mlp", "ff.in", "block.1"),
        ("flux", "transformer.forward", "single_*.1.proj_out", "attn.out", "block.2"),
        ("flux", "transformer.forward", "proj_out", "last", ""),
    ],
)  # fmt: skip
def test_roles_and_stages_of_known_modules(
    family: str, where: str, pattern: str, role: str, stage: str
) -> None:
    chosen = [site for key, site in by_key(family, where).items() if fnmatch(key, pattern)]
    assert chosen
    for site in chosen:
        assert fnmatch(site.role, role), site
        assert fnmatch(site.stage, stage), site


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "where", "key", "role", "stage"),
    [
        ("wan", "transformer.forward", "patch_embedding", "first", ""),
        ("wan", "transformer.forward", "blocks.1.attn1.to_q", "attn.q", "block.1"),
        ("wan", "vae.decode", "decoder.conv_out#2", "last", ""),
        ("wan", "vae.decode", "decoder.mid_block.attentions.0.to_qkv", "attn.qkv", "mid"),
        ("sana", "transformer.forward", "transformer_blocks.0.attn1.to_k", "attn.k", "block.0"),
        ("sana", "text_encoder.forward", "layers.0.self_attn.qk", "attn.qk", "block.0"),
        ("sana", "vae.decode", "decoder.up_blocks.3.0.attn.to_out", "attn.out", "up.0"),
        ("sd-controlnet", "controlnet.forward", "controlnet_mid_block", "last", ""),
        ("stable-audio", "transformer.forward", "postprocess_conv", "last", ""),
        ("stable-audio", "vae.decode", "decoder.block.1.conv_t1", "conv", "up.1"),
    ],
)  # fmt: skip
def test_roles_and_stages_of_unusual_modules(
    family: str, where: str, key: str, role: str, stage: str
) -> None:
    site = by_key(family, where)[key]
    assert (site.role, site.stage) == (role, stage)


@pytest.mark.parametrize(
    ("family", "where"),
    [("sd", "unet.forward"), ("sd", "vae.decode"), ("flux", "transformer.forward"), ("sd3", "text_encoder_3.forward")],
)  # fmt: skip
def test_multiply_accumulates_are_those_that_torch_counts(family: str, where: str) -> None:
    graph = graphs_of(family)[where]
    inputs = {
        spec.name: torch.ones([int(size) for size in spec.shape], dtype=getattr(torch, spec.dtype))
        for spec in graph.inputs
    }
    opened = open_attention(graph, [site.key for site in sites(graph)])  # fused, it is not counted
    with FlopCounterMode(display=False) as counter:
        run(opened, inputs)

    assert 2 * sum(site.macs for site in sites(graph)) == counter.get_total_flops()


def test_sizes_that_move_count_with_the_example() -> None:
    static = {site.key: site.macs for site in sites(graph_of(Block, block_inputs(batch=3))[0])}
    size = torch.export.Dim.AUTO
    moving = {"x": {0: size, 2: size, 3: size}, "t": None, "context": {0: size}}
    graph, _ = graph_of(Block, block_inputs(batch=3), dynamic=moving)

    assert {site.key: site.macs for site in sites(graph)} == static


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.mixed = nn.Parameter(torch.ones(8, 4))
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.unused = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.unused(x)
        y = self.linear(self.linear(x)) @ self.mixed
        return self.attention(y, y, y, need_weights=False)[0] @ y.transpose(1, 2)


def test_calls_are_numbered_and_weights_found_where_they_are() -> None:
    graph, _ = graph_of(_Twice, {"x": torch.ones(2, 3, 8)})
    found = {site.key: site for site in sites(graph)}

    assert found["linear"].weight == found["linear#2"].weight == "linear.weight"
    assert found["linear"].node != found["linear#2"].node
    mixed = next(site for site in found.values() if site.weight == "mixed")
    assert (mixed.op, mixed.weight_shape, dict(mixed.ports)) == ("matmul", (8, 4), {"input": 0})
    assert found["attention.out_proj"].weight == "attention.out_proj.weight"
    assert dict(found["matmul#2"].ports if "matmul#2" in found else found["matmul"].ports)
    assert not any("unused" in key for key in found)


class _Crossing(nn.Module):
    """A convolution of 3x5 whose 16 places ask 7 keys."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, (3, 5), padding=(1, 2), groups=2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        query = self.conv(x).flatten(2).transpose(1, 2)[:, None]
        return nn.functional.scaled_dot_product_attention(query, y, y)


def test_attention_has_its_keys_and_a_convolution_its_kernel_before_and_after_it_is_opened() -> (
    None
):
    graph, _ = graph_of(_Crossing, {"x": torch.ones(2, 8, 4, 4), "y": torch.ones(2, 1, 7, 8)})
    opened = open_attention(graph, [s.key for s in sites(graph) if s.is_attention_product])

    for each in (graph, opened):
        found = {site.op: site for site in sites(each)}
        assert (found["conv2d"].kernel, found["conv2d"].keys) == (15, 0)
        for product in ("qk", "pv"):
            assert (found[product].keys, found[product].head, found[product].kernel) == (7, 8, 0)
