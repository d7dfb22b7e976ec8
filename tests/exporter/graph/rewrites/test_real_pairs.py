"""Complex numbers become pairs of real ones that compute the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from qdx.exporter.errors import TargetRefusal
from qdx.exporter.graph.analysis.flow import name_of
from qdx.exporter.graph.analysis.precision import Float32Reason, float32_nodes
from qdx.exporter.graph.execute.interpreter import run
from tests.support.traced_modules import graph_of_module


class Rotary(nn.Module):
    """A rotary embedding as models write it: angles, a constant table, and a product."""

    def __init__(self):
        super().__init__()
        angles = torch.outer(torch.arange(16.0), torch.tensor([1.0, 0.1, 0.01]))
        self.table = torch.polar(torch.ones_like(angles), angles)

    def forward(self, x, places):
        own = torch.polar(torch.ones_like(places), places)[:, None] * self.table[:1]
        rotation = torch.cat([own, self.table[: x.shape[1] - places.shape[0]]])[None, :, None]
        pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * rotation).flatten(3).type_as(x)


OPERATORS = {
    "arithmetic": lambda z, w, x: (z + w * 2 - x) / (w + 3j) + 1j * x - (2 - z) * x / 2,
    "reversed": lambda z, w, x: torch.rsub(z, w, alpha=2) + (1 + 2j) / (w + 4) + x.exp() * 1j,
    "scaled": lambda z, w, x: torch.add(z, w, alpha=0.5) + torch.sub(x, z, alpha=2),
    "conjugate": lambda z, w, x: torch.conj(z) * w.conj_physical().resolve_conj() + x,
    "parts": lambda z, w, x: torch.complex(z.imag, w.real * x) - z.real,
    "polar": lambda z, w, x: torch.polar(z.abs(), w.angle()) + torch.log(z + 3) + torch.sgn(w) + x,
    "powers": lambda z, w, x: z**2 + w.square() + torch.sqrt(z) + (w + 2) ** 0.5 + x.reciprocal() * z,
    "exponential": lambda z, w, x: torch.exp(1j * x) * z + torch.exp(w),
    "chosen": lambda z, w, x: torch.where(x > 0, z, w) + z.masked_fill(x > 0.5, 1j) + torch.where(x > 0, z, 0.0),
    "moved": lambda z, w, x: torch.cat([z, x + 0j, w], -1).roll(1, -1).flip(0).permute(1, 0)[::2, 1:].unsqueeze(0).repeat(2, 1, 1),
    "parted": lambda z, w, x: torch.stack([*z.split([1, 3], -1)[1].unbind(-1), *w.chunk(2, -1)[0].unbind(-1)], -1) + x.sum(),
    "gathered": lambda z, w, x: z.index_select(1, torch.tensor([3, 0])) + w[:, torch.tensor([1, 2])] + z.gather(1, torch.ones(2, 2).long()) + x[:, :1],
    "reduced": lambda z, w, x: z.sum(-1, keepdim=True) + w.mean(0) + z.cumsum(1) + x,
    "products": lambda z, w, x: z @ w.mT + torch.einsum("ij,kj->ik", z, w) + torch.matmul(x + 0j, w.T) + nn.functional.linear(z, w),
    "made": lambda z, w, x: torch.zeros_like(z) + torch.ones(2, 4, dtype=torch.complex64) * w + torch.full((2, 4), 1 + 2j) + torch.full_like(z, 2j) + x,
    "cast": lambda z, w, x: z.to(torch.complex128).to(torch.complex64) + x.to(torch.complex64) + w.to(torch.complex64),
    "viewed": lambda z, w, x: torch.cat([z.view(torch.float32), x], -1).view(torch.complex64).expand(3, 2, 6).reshape(3, -1) + w.sum(),
    "written": lambda z, w, x: torch.zeros_like(z).index_put((torch.tensor([1]),), w[0]) + z.clone().mul_(x).add_(1),
    "padded": lambda z, w, x: nn.functional.pad(z, (1, 2))[:, 1:5] + w * x,
    "filled": lambda z, w, x: nn.utils.rnn.pad_sequence([z[0], w[1, :2], x[0, :3] + 0j], batch_first=True) + x.sum(),
    "compared": lambda z, w, x: (z == w).float() + (z != z).float() + torch.isfinite(z).float() + x,
}  # fmt: skip


class Through(nn.Module):
    """An operator on complex numbers that come as real ones and leave as such."""

    def __init__(self, name):
        super().__init__()
        self.name = name

    def forward(self, one, other, x):
        found = OPERATORS[self.name](torch.view_as_complex(one), torch.view_as_complex(other), x)
        return torch.view_as_real(found) if found.is_complex() else found


def inputs():
    generator = torch.Generator().manual_seed(0)
    return {
        "one": torch.randn(2, 4, 2, generator=generator),
        "other": torch.randn(2, 4, 2, generator=generator),
        "x": torch.randn(2, 4, generator=generator),
    }


def has_complex(graph):
    values = [node.meta.get("val") for node in graph.program.graph.nodes]
    return any(isinstance(value, torch.Tensor) and value.is_complex() for value in values)


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_is_computed_on_parts(name):
    graph = graph_of_module(Through(name), inputs())

    (found,) = run(graph, inputs()).values()

    expected = Through(name)(**inputs())
    assert not has_complex(graph)
    assert found.dtype == expected.dtype
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("moving", [None, {"x": (0, 1)}], ids=["static", "dynamic"])
def test_a_rotary_embedding_keeps_its_angles_in_float32(moving):
    given = {"x": torch.randn(2, 7, 5, 6), "places": torch.arange(2.0)}
    graph = graph_of_module(Rotary(), given, moving=moving)

    (found,) = run(graph, given).values()

    assert torch.allclose(found, Rotary()(**given), atol=1e-6)
    kept = float32_nodes(graph, (), time_table=False)
    waves = [node.name for node in graph.program.graph.nodes if name_of(node) in {"cos", "sin"}]
    assert len(waves) == 2
    assert all(kept[name] is Float32Reason.ANGLE for name in waves)


class Given(nn.Module):
    """Complex numbers in and out."""

    def forward(self, x, rotation):
        return {"sample": x * rotation.real, "rotated": rotation * 2j}


def test_complex_inputs_and_outputs_have_a_last_dimension_of_two():
    rotation = torch.polar(torch.rand(3), torch.rand(3))
    given = {"x": torch.randn(2, 3), "rotation": rotation}

    graph = graph_of_module(Given(), given, moving={"x": (0,)})
    found = run(graph, given | {"rotation": torch.view_as_real(rotation)})

    declared = {spec.name: spec for spec in (*graph.inputs, *graph.outputs)}
    for name in ("rotation", "rotated"):
        assert declared[name].pairs
        assert (declared[name].dtype, declared[name].shape) == ("float32", (3, 2))
    assert not declared["x"].pairs
    assert torch.allclose(torch.view_as_complex(found["rotated"]), rotation * 2j)


def test_an_operator_without_a_form_is_refused_with_its_module():
    class Spectrum(nn.Module):
        def forward(self, x):
            return torch.fft.fft(x).real

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.mixer = Spectrum()

        def forward(self, x):
            return self.mixer(x)

    with pytest.raises(TargetRefusal, match=r"`part.mixer`: .*fft_fft.*no form in real") as refused:
        graph_of_module(Model(), {"x": torch.randn(2, 4)})
    assert refused.value.refusals[0].site == "part.mixer"
