"""Models that coremltools compressed, beside the same models as coremltools decompresses them itself."""

from __future__ import annotations

import contextlib
import io
import warnings

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from torch import nn

from qdx.backends.coreml.lower.package import quiet
from qdx.backends.coreml.mil.interpreter import Interpreter
from qdx.backends.coreml.mil.reader import read_package
from tests.support.coreml_packages import converted, random

X = random(2, 16, 6, 6)


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(16, 32, 3), nn.Linear(32, 48)

    def forward(self, x):
        return self.linear(self.conv(x).flatten(2).transpose(1, 2))


def palettes(**options):
    config = cto.OpPalettizerConfig(mode="uniform", weight_threshold=0, **options)
    return lambda model: cto.palettize_weights(model, cto.OptimizationConfig(config))


def integers(**options):
    config = cto.OpLinearQuantizerConfig(weight_threshold=0, **options)
    return lambda model: cto.linear_quantize_weights(model, cto.OptimizationConfig(config))


def pruned(model):
    config = cto.OpMagnitudePrunerConfig(target_sparsity=0.6, weight_threshold=0)
    return cto.prune_weights(model, cto.OptimizationConfig(config))


def pruned_palettes(model):
    config = cto.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=0)
    return cto.palettize_weights(
        pruned(model), cto.OptimizationConfig(config), joint_compression=True
    )


def pruned_integers(model):
    config = cto.OpLinearQuantizerConfig(dtype="int8", weight_threshold=0)
    return cto.linear_quantize_weights(
        pruned(model), cto.OptimizationConfig(config), joint_compression=True
    )


def palettes_of_integers(model):
    config = cto.OpLinearQuantizerConfig(dtype="int8", granularity="per_tensor", weight_threshold=0)
    return cto.linear_quantize_weights(
        palettes(nbits=4)(model), cto.OptimizationConfig(config), joint_compression=True
    )


LUT, BLOCKS = "constexpr_lut_to_dense", "constexpr_blockwise_shift_scale"
AFFINE, SPARSE = "constexpr_affine_dequantize", "constexpr_sparse_to_dense"
GROUPED = palettes(nbits=4, granularity="per_grouped_channel", group_size=8)
BY_16 = integers(dtype="int4", granularity="per_block", block_size=16)
BY_8 = integers(mode="linear", dtype="uint4", granularity="per_block", block_size=8)
CASES = {
    "palette of 1 bit, iOS 16": ("iOS16", LUT, palettes(nbits=1)),
    "palette of 6 bits, iOS 16": ("iOS16", LUT, palettes(nbits=6)),
    "int8, iOS 16": ("iOS16", AFFINE, integers(dtype="int8")),
    "uint8, iOS 17": ("iOS17", AFFINE, integers(mode="linear", dtype="uint8")),
    "pruned, iOS 16": ("iOS16", SPARSE, pruned),
    "palette of 3 bits": ("iOS18", LUT, palettes(nbits=3)),
    "palettes of groups": ("iOS18", LUT, GROUPED),
    "int8": ("iOS18", BLOCKS, integers(dtype="int8")),
    "uint4 with offsets": ("iOS18", BLOCKS, BY_8),
    "int4": ("iOS18", BLOCKS, BY_16),
    "pruned": ("iOS18", SPARSE, pruned),
    "pruned palette": ("iOS18", "constexpr_lut_to_sparse", pruned_palettes),
    "pruned int8": ("iOS18", "constexpr_sparse_blockwise_shift_scale", pruned_integers),
    "palette of int8": ("iOS18", BLOCKS, palettes_of_integers),
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("layers")
    torch.manual_seed(0)
    module = Layers().eval()
    return {
        target: converted(
            module, {"x": X}, folder / f"{target}.mlpackage", target=target, precision="FLOAT32"
        )
        for target in ("iOS16", "iOS17", "iOS18")
    }


@pytest.mark.parametrize("case", CASES)
def test_both_decompress_alike(packages, tmp_path, case):
    target, kind, compress = CASES[case]
    small, large = tmp_path / "small.mlpackage", tmp_path / "large.mlpackage"
    with quiet(), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        model = compress(ct.models.MLModel(str(packages[target]), skip_model_load=True))
        model.save(str(small))
        cto.decompress_weights(model).save(str(large))

    program = read_package(small)
    found = Interpreter(program).run({"x": X.numpy()})["y"]
    expected = Interpreter(read_package(large)).run({"x": X.numpy()})["y"]

    assert kind in {op.kind for op in program.main.operations}
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
