"""A schedule with fractions reaches the artifact unrounded, or the layout's integers stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from qdx.exporter.capture.capture import capture
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.skeleton import build_skeleton
from qdx.source.timesteps import with_exact_timesteps
from qdx.targets.profile import load_target
from tests.support.tiny import FAMILIES, build


@pytest.mark.parametrize(
    ("spacing", "dtype", "notes"), [("linspace", "float32", 1), ("leading", "int64", 0)]
)
def test_the_timestep_of_a_unet_on_openvino(
    spacing: str, dtype: str, notes: int, tmp_path: Path
) -> None:
    from diffusers import EulerDiscreteScheduler

    folder = build("sd", tmp_path / "sd")
    skeleton = build_skeleton(read_pipeline_folder(folder))
    skeleton.pipeline.scheduler = EulerDiscreteScheduler(timestep_spacing=spacing)
    captured = capture(skeleton, FAMILIES["sd"].arguments(), shapes="static")

    profile, said = with_exact_timesteps(load_target("openvino"), skeleton, captured)

    port = profile.layout.input("unet", "forward", "timestep", "float32")
    assert port.dtype == dtype
    assert port.rank == 1
    assert len(said) == notes
