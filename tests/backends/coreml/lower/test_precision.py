"""Float16 where it is right: positions stay float32, masks stay finite, magnitudes that do not fit are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from qdx.backends.coreml.mil.interpreter import Interpreter
from qdx.backends.coreml.run import CoreMlRunner
from qdx.exporter.errors import TargetRefusal
from qdx.exporter.graph.analysis.sites import sites
from qdx.exporter.graph.rewrites.face import Port, with_face
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.exporter.transforms.insert import insert
from qdx.exporter.transforms.time_embedding import precomputed_time_embedding
from qdx.targets import load_target
from qdx.targets.profile import TargetLayout
from tests.support.coreml_lowered import arrays, lowered, program_of
from tests.support.coreml_placed import HALF, W8, placed
from tests.support.lowering import lower
from tests.support.tracing import graph_of, sqnr_db


def types_of(folder: Path) -> dict[str, str]:
    """Element type of the results of each kind of operation."""
    return {op.kind: op.outputs[0].type.kind.name for op in program_of(folder).main.operations}


class Embedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 8)

    def forward(self, t: torch.Tensor) -> torch.Tensor:
        frequencies = torch.exp(-torch.arange(16) / 16 * 9.2)
        angles = t[:, None] * frequencies
        return self.linear(torch.cat([angles.sin(), angles.cos()], dim=-1))


def test_arguments_of_sines_stay_float32(tmp_path: Path) -> None:
    inputs = {"t": torch.tensor([981.0])}
    graph, module = graph_of(Embedding, inputs)
    folder = lowered(graph, tmp_path)
    kinds = types_of(folder)
    assert {kinds["sin"], kinds["cos"], kinds["mul"]} == {"float32"}
    assert kinds["linear"] == "float16"
    assert sqnr_db(module(**inputs), CoreMlRunner(folder, {})(arrays(inputs))["y"]) > 60


class Denoiser(nn.Module):
    """A picture and a timestep to a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(4, 8, 3, padding=1)
        self.time = nn.Linear(1, 8)
        self.conv_out = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        hidden = self.conv_in(x) + self.time(t)[:, :, None, None]
        return self.conv_out(nn.functional.silu(hidden))


class Decoder(nn.Module):
    """The same without a timestep."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(4, 8, 3, padding=1)
        self.conv_out = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv_out(nn.functional.silu(self.conv_in(x)))


def first_and_last(folder: Path) -> list[str]:
    """Types of the two convolutions."""
    operations = program_of(folder).main.operations
    return [op.outputs[0].type.kind.name for op in operations if op.kind == "conv"]


def test_what_looks_for_noise_reads_its_input_as_it_is_given(tmp_path: Path) -> None:
    inputs = {"x": torch.randn(1, 4, 8, 8), "t": torch.ones(1, 1)}
    graph, module = graph_of(Denoiser, inputs)
    folder = lowered(graph, tmp_path)

    assert first_and_last(folder) == ["float32", "float16"]
    assert sqnr_db(module(**inputs), CoreMlRunner(folder, {})(arrays(inputs))["y"]) > 60


def test_nothing_is_gained_where_it_is_given_rounded(tmp_path: Path) -> None:
    graph, _ = graph_of(Denoiser, {"x": torch.randn(1, 4, 8, 8), "t": torch.ones(1, 1)})
    ports = {"x": Port("x", "float16"), "t": Port("t", "float32")}
    half = with_face(graph, ports, {"y": Port("y", "float32")})
    target = load_target("coreml")
    plain = target.model_copy(update={"layout": TargetLayout(model_file="model.mlpackage")})
    lower(half, FloatTypes("float16"), plain, tmp_path)

    assert first_and_last(tmp_path) == ["float16", "float16"]


def test_nothing_looks_for_noise_without_a_timestep(tmp_path: Path) -> None:
    graph, _ = graph_of(Decoder, {"x": torch.randn(1, 4, 8, 8)})

    assert first_and_last(lowered(graph, tmp_path)) == ["float16", "float16"]


class Snake(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).sin()


def test_sines_of_what_weights_made_do_not(tmp_path: Path) -> None:
    graph, _ = graph_of(Snake, {"x": torch.ones(1, 8)})
    kinds = types_of(lowered(graph, tmp_path))

    assert kinds["sin"] == "float16"


class Masked(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        lowest = torch.full((4, 4), torch.finfo(torch.float32).min).triu(1)
        infinite = torch.full((4, 4), -torch.inf).triu(3)
        return (x + lowest + infinite).softmax(-1)


def test_masks_stay_finite(tmp_path: Path) -> None:
    inputs = {"x": torch.full((4, 4), -3000.0)}
    graph, module = graph_of(Masked, inputs)
    seen: list[np.ndarray] = []
    folder = lowered(graph, tmp_path)
    result = CoreMlRunner(folder, {})(arrays(inputs))["y"]
    Interpreter(program_of(folder)).run(
        arrays(inputs), observe=lambda _, value: seen.append(np.asarray(value))
    )

    assert all(np.isfinite(value).all() for value in seen if value.dtype.kind == "f")
    assert sqnr_db(module(**inputs), result) > 60


class Enormous(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(256, 256)
        with torch.no_grad():
            self.linear.weight[3, 5] = 1e6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


def test_a_weight_beyond_float16_is_refused_by_name(tmp_path: Path) -> None:
    graph, _ = graph_of(Enormous, {"x": torch.ones(1, 256)})

    with pytest.raises(TargetRefusal, match=r"`linear.weight`: magnitude 1e\+06 does not fit"):
        lowered(graph, tmp_path)


class RootMeanSquare(nn.Module):
    """As transformers write it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(x)
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Reciprocal(RootMeanSquare):
    """The same with a reciprocal."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(x)
        return x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt().reciprocal()


NORMS = {
    "written out": (RootMeanSquare, (4, 32)),
    "with a reciprocal": (Reciprocal, (4, 32)),
    "root mean square": (lambda: Named(nn.RMSNorm(32)), (4, 32)),
    "group": (lambda: Named(nn.GroupNorm(4, 32)), (1, 32, 2, 2)),
}


class Named(nn.Module):
    """A module whose input is called `x`."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.inner(x)
        return result


@pytest.mark.parametrize("norm", NORMS)
def test_norms_of_what_has_squares_beyond_float16_are_right(norm: str, tmp_path: Path) -> None:
    make, shape = NORMS[norm]
    inputs = {"x": torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 900}
    graph, module = graph_of(make, inputs)
    folder = lowered(graph, tmp_path)

    found = CoreMlRunner(folder, {})(arrays(inputs))["y"]
    assert np.isfinite(found).all()
    assert sqnr_db(module(**inputs), found) > 55


class LinearAttention(nn.Module):
    """As Sana's: the sums of weights are a row of the product."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.qkv(x).transpose(1, 2).chunk(3, dim=1)
        value = nn.functional.pad(value, (0, 0, 0, 1), value=1.0)
        scores = value @ nn.functional.relu(key).transpose(1, 2)
        sums = scores @ nn.functional.relu(query)
        return sums[:, :-1] / (sums[:, -1:] + 1e-15)


def test_sums_beyond_float16_are_divided_before_they_are_rounded(tmp_path: Path) -> None:
    inputs = {"x": torch.randn(1, 64, 8, generator=torch.Generator().manual_seed(0)) * 90}
    graph, module = graph_of(LinearAttention, inputs)
    folder = lowered(graph, tmp_path)
    kinds = types_of(folder)

    assert (kinds["matmul"], kinds["linear"]) == ("float32", "float16")
    assert sqnr_db(module(**inputs), CoreMlRunner(folder, {})(arrays(inputs))["y"]) > 55


def test_what_follows_from_the_square_stays_float32_up_to_the_product_with_the_root(
    tmp_path: Path,
) -> None:
    graph, _ = graph_of(RootMeanSquare, {"x": torch.randn(4, 32)})
    kinds = types_of(lowered(graph, tmp_path))

    assert {kinds["reduce_mean"], kinds["rsqrt"], kinds["mul"]} == {"float32"}
    assert kinds["linear"] == "float16"


class Feeding(nn.Module):
    """A block of a transformer: positions, a norm, attention on what is moved about, and two residual sums."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(256, 64))
        self.norm = nn.LayerNorm(64)
        self.qkv = nn.Linear(64, 192)
        self.out = nn.Linear(64, 64)
        self.ff = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.positions
        heads = self.qkv(self.norm(x)).reshape(1, 256, 3, 4, 16).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        x = x + self.out(mixed.transpose(1, 2).reshape(1, 256, 64))
        return x + nn.functional.silu(self.ff(x))


FEEDING = {"x": torch.randn(1, 256, 64, generator=torch.Generator().manual_seed(0)) * 30}


def test_in_mixed_precision_products_alone_are_float16(tmp_path: Path) -> None:
    graph, _ = graph_of(Feeding, FEEDING)
    operations = program_of(lowered(graph, tmp_path, mixed=True)).main.operations
    kinds = {"linear", "scaled_dot_product_attention", "layer_norm", "silu", "add", "transpose", "reshape"}  # fmt: skip
    types = {(op.kind, op.outputs[0].type.kind.name) for op in operations if op.kind in kinds}

    # What brings a projection into heads, and heads into one, is not widened on the way.
    assert types == {
        *((kind, "float16") for kind in ("linear", "scaled_dot_product_attention", "transpose", "reshape")),
        *((kind, "float32") for kind in ("layer_norm", "silu", "add")),
    }  # fmt: skip


class Residual(nn.Module):
    """A residual block whose shortcut changes the number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(4, 16, 3, padding=1)
        self.norm = nn.GroupNorm(4, 16)
        self.conv1 = nn.Conv2d(16, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1)
        self.shortcut = nn.Conv2d(16, 32, 1)
        self.conv_out = nn.Conv2d(32, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(x)
        hidden = self.conv1(nn.functional.silu(self.norm(x)))
        x = self.shortcut(x) + self.conv2(nn.functional.silu(hidden))
        return self.conv_out(nn.functional.silu(x))


@pytest.mark.parametrize(("mixed", "shortcut"), [(True, "float32"), (False, "float16")])
def test_in_mixed_precision_shortcuts_are_no_products(
    mixed: bool, shortcut: str, tmp_path: Path
) -> None:
    graph, _ = graph_of(Residual, {"x": torch.randn(1, 4, 8, 8)})
    operations = program_of(lowered(graph, tmp_path, mixed=mixed)).main.operations
    types = [op.outputs[0].type.kind.name for op in operations if op.kind == "conv"]

    assert sorted(types) == ["float16"] * 4 + [shortcut]


def test_a_quantized_shortcut_has_the_type_of_its_scales(tmp_path: Path) -> None:
    graph, _ = graph_of(Residual, {"x": torch.randn(1, 4, 8, 8)})
    graph, placement = placed(graph, HALF, {"select": {"op": "conv2d"}, "weights": W8})
    made = insert(graph, sites(graph), placement)
    operations = program_of(lowered(made, tmp_path, mixed=True)).main.operations
    types = [op.outputs[0].type.kind.name for op in operations if op.kind == "conv"]

    assert types == ["float16"] * 5


def test_mixed_precision_stores_weights_of_products_in_float16(tmp_path: Path) -> None:
    graph, module = graph_of(Feeding, FEEDING)
    folder = lowered(graph, tmp_path, mixed=True)
    weights = folder / "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
    products = sum(p.numel() for name, p in module.named_parameters() if "." in name)

    assert weights.stat().st_size < 2 * products + 4 * 256 * 64 + 4096


class Padded(nn.Module):
    """Attention where a mask of least numbers leaves a sample nothing."""

    def forward(self, x: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        mask = (1.0 - m)[:, None, None, :] * torch.finfo(torch.float32).min
        return nn.functional.scaled_dot_product_attention(x, x, x, mask.expand(2, 2, 8, 8))


@pytest.mark.parametrize("mixed", [True, False])
def test_masks_of_everything_stay_finite(mixed: bool, tmp_path: Path) -> None:
    inputs = {"x": torch.randn(2, 2, 8, 16), "m": torch.tensor([[1.0] * 8, [0.0] * 8])}
    graph, module = graph_of(Padded, inputs)
    found = CoreMlRunner(lowered(graph, tmp_path, mixed=mixed), {})(arrays(inputs))["y"]

    assert np.isfinite(found).all()
    assert sqnr_db(module(**inputs)[0], found[0]) > 60


class Picked(nn.Module):
    """Values beyond float16, bounded on one side, reordered and brought back."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        large = (self.linear(x) * 1e5).clamp(min=0)
        return large[:, torch.tensor([3, 1, 2, 0])] * 1e-5


def test_values_beyond_float16_are_bounded_and_moved_in_float32_in_mixed_precision(
    tmp_path: Path,
) -> None:
    inputs = {"x": torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))}
    graph, module = graph_of(Picked, inputs)
    found = CoreMlRunner(lowered(graph, tmp_path, mixed=True), {})(arrays(inputs))["y"]

    assert sqnr_db(module(**inputs), found) > 60


@pytest.mark.parametrize("mixed", [True, False])
def test_a_denoiser_with_a_table_of_timesteps_reads_its_input_as_it_is_given(
    mixed: bool, tmp_path: Path
) -> None:
    inputs = {"x": torch.randn(1, 4, 8, 8), "t": torch.ones(1)}
    graph, _ = graph_of(Scheduled, inputs)
    table = precomputed_time_embedding(graph, torch.tensor([1.0, 2.0]), "t")
    assert "linear" not in types_of(lowered(table, tmp_path / "types"))

    assert first_and_last(lowered(table, tmp_path, mixed=mixed)) == ["float32", "float16"]


class Scheduled(nn.Module):
    """A denoiser whose timestep is a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.denoiser = Denoiser()

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.denoiser(x, t[:, None])
        return result


def test_mixed_precision_is_closer_than_float16(tmp_path: Path) -> None:
    graph, module = graph_of(Feeding, FEEDING)
    mixed = lowered(graph, tmp_path / "mixed", mixed=True)
    plain = lowered(graph, tmp_path / "plain")
    mixed_db, plain_db = (
        sqnr_db(module(**FEEDING), CoreMlRunner(folder, {})(arrays(FEEDING))["y"])
        for folder in (mixed, plain)
    )

    assert mixed_db > plain_db + 2
