"""Group norms that a timestep scales and shifts are compiled, with the same values."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from qdx.backends.openvino.lower import MODEL_FILE
from qdx.exporter.plan.resolve.resolution import FloatTypes
from qdx.targets.profile import load_target
from tests.support.lowering import lower
from tests.support.tracing import graph_of

_RUN = """
import sys
from pathlib import Path
import numpy as np
from qdx.backends.openvino.run import OpenVinoRunner
from qdx.targets.profile import load_target
folder = Path(sys.argv[1])
runner = OpenVinoRunner(folder / sys.argv[2], dict(load_target("openvino").options))
given = dict(np.load(folder / "in.npz"))
np.save(folder / "out.npy", runner(given)[runner.outputs[0].name])
"""
"""In a process of its own, which a crash may end."""


class Modulated(nn.Module):
    """What a residual block does with a timestep."""

    def __init__(self, *, act):
        super().__init__()
        self.norm = nn.GroupNorm(4, 8)
        self.time = nn.Linear(6, 16)
        self.act = nn.SiLU() if act else nn.Identity()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x, t):
        scale, shift = self.time(t)[:, :, None, None].chunk(2, dim=1)
        return self.conv(self.act(self.norm(x)) * (1 + scale) + shift)


@pytest.mark.parametrize(
    ("act", "moving"),
    [
        pytest.param(False, False, id="static-norm", marks=pytest.mark.slow),
        pytest.param(False, True, id="dynamic-norm"),
        pytest.param(True, False, id="static-activation"),
        pytest.param(True, True, id="dynamic-activation", marks=pytest.mark.slow),
    ],
)
def test_a_norm_that_is_scaled_and_shifted_is_compiled(moving, act, tmp_path):
    import numpy as np

    inputs = {"x": torch.randn(2, 8, 6, 5) * 3 + 1, "t": torch.randn(2, 6)}
    size = torch.export.Dim("height", min=2)
    dynamic = {"x": {2: size}, "t": {}} if moving else None
    graph, module = graph_of(lambda: Modulated(act=act), inputs, dynamic=dynamic)
    lower(graph, FloatTypes("float32"), load_target("openvino"), tmp_path)
    np.savez(tmp_path / "in.npz", **{name: value.numpy() for name, value in inputs.items()})

    command = [sys.executable, "-c", _RUN, str(tmp_path), MODEL_FILE]
    subprocess.run(command, check=True)

    found = torch.from_numpy(np.load(tmp_path / "out.npy"))
    assert torch.allclose(found, module(**inputs), atol=1e-4)
