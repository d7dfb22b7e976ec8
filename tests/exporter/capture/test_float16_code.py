"""What a module's own Python does in float16 is found in a graph that computes in float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from qdx.exporter.capture.float16_code import Float16Code, kept_parameters, remove_traces

X = torch.randn(2, 4)


class Net(nn.Module):
    """A linear layer that is kept in float32, another that is not, and a forward method."""

    _keep_in_fp32_modules = ("wide",)

    def __init__(self, body: Callable[[Net, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.linear, self.wide, self.widest = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self, x)


def told(body: Callable[[Net, torch.Tensor], torch.Tensor]) -> tuple[str, torch.dtype]:
    """What a result calls itself in float16, and the type in which it is computed."""
    net = Net(body)
    with Float16Code(net), torch.no_grad():
        result = net(X)
        name = str(result.dtype)
    return name.removeprefix("torch."), result.dtype


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (lambda net, x: x, "float16"),
        (lambda net, x: net.linear(x) * 2, "float16"),
        (lambda net, x: x + 1.0 / torch.ones(()), "float16"),
        (lambda net, x: x.float(), "float32"),
        (lambda net, x: x.to(torch.float32).square().mean(-1, keepdim=True), "float32"),
        (lambda net, x: (x.float() * x).to(x.dtype), "float16"),
        (lambda net, x: (x.float() * x).type_as(x), "float16"),
        (lambda net, x: (x.float() * x).half(), "float16"),
        (lambda net, x: x + net.wide(x.to(net.wide.weight.dtype)), "float32"),
        (lambda net, x: torch.arange(4) / 2 + x, "float32"),
        (lambda net, x: torch.zeros(4, dtype=x.dtype) + x, "float16"),
        (lambda net, x: torch.zeros_like(x) + x.split(2, dim=-1)[0].repeat(1, 2), "float16"),
        (lambda net, x: x.clone().add_(x.float()), "float16"),
    ],
)
def test_tensors_call_themselves_what_they_would_be(body, expected):
    assert told(body) == (expected, torch.float32)


def test_other_types_are_what_they_are():
    assert told(lambda net, x: x.double())[0] == "float64"
    assert told(lambda net, x: x.bfloat16())[0] == "bfloat16"
    assert told(lambda net, x: x.argmax(-1))[0] == "int64"


def test_what_a_library_loads_in_float32_is_known_by_its_name():
    assert kept_parameters(Net(lambda net, x: x)) == {"wide.weight", "wide.bias"}
    assert kept_parameters(nn.Linear(1, 1)) == frozenset()


def _clipped(net: Net, x: torch.Tensor) -> torch.Tensor:
    y = net.linear(x)
    return y.clip(-65504, 65504) if y.dtype == torch.float16 else y


def _clamped_where_infinite(net: Net, x: torch.Tensor) -> torch.Tensor:
    y = net.linear(x)
    if y.dtype == torch.float16:
        most = torch.finfo(y.dtype).max
        bound = torch.where(torch.isinf(y).any(), most - 1000, most)
        y = torch.clamp(y, min=-bound, max=bound)
    return y


def _clamped_unless_finite(net: Net, x: torch.Tensor) -> torch.Tensor:
    y = net.linear(x)
    if y.dtype == torch.float16 and not torch.isfinite(y).all():
        y = y.clamp(-60000, 60000)
    return y


def _clipped_in_float32(net: Net, x: torch.Tensor) -> torch.Tensor:
    y = net.linear(x).float()
    return (y.clip(-65504, 65504) if y.dtype == torch.float16 else y) * 2


@pytest.mark.parametrize(
    ("body", "bound"),
    [(_clipped, 65504), (_clamped_where_infinite, 64504), (_clamped_unless_finite, 60000),
     (_clipped_in_float32, None)],
)  # fmt: skip
def test_guards_stand_in_a_graph_with_the_librarys_own_bounds(body, bound):
    class Traced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = Net(body)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with Float16Code(self.module):
                return self.module(x)

    with torch.no_grad():
        program = torch.export.export(Traced(), (X,), strict=False)
    remove_traces(program)

    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    names = [node.target.overloadpacket.__name__ for node in calls]
    guards = [
        node.args[1:] for node in calls if node.target.overloadpacket.__name__ in {"clip", "clamp"}
    ]
    assert guards == ([] if bound is None else [(-bound, bound)])
    assert not {"isinf", "isfinite", "any", "all", "where", "detach"} & set(names)
    assert all(
        value.dtype is torch.float32
        for node in calls
        if isinstance(value := node.meta.get("val"), torch.Tensor)
    )
    with torch.no_grad():
        result = program.module()(X * 1e6)
    assert float(result.abs().max()) == bound if bound else float(result.abs().max()) > 65504
