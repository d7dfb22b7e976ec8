"""The run that decides an open trace takes sizes that do not divide, as far as the pipeline takes such."""

from __future__ import annotations

from pathlib import Path

import pytest

from qdx.exporter.capture.capture import Capture, capture
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.exporter.capture.other_sizes import UNITS, OtherRun, on_grid, run_off_grid
from qdx.exporter.capture.skeleton import build_skeleton
from tests.support.tiny import FAMILIES, build


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((64, 64), (128, 192)),
        ((72, 104), (192, 320)),
        ((96, 64), (192, 256)),
        ((512, 512), (1024, 1536)),
    ],
)
def test_every_usual_number_of_downsamplings_divides_the_second_size(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert on_grid(size, 8) == expected


def _runs(name: str, folder: Path) -> tuple[Capture, list[OtherRun | None]]:
    skeleton = build_skeleton(read_pipeline_folder(build(name, folder / name)))
    found = capture(skeleton, FAMILIES[name].arguments(), shapes="dynamic")
    call = dict(found.call)
    runs = [
        run_off_grid(skeleton, call, found.records, found.size_pixels, unit) for unit in UNITS[:2]
    ]
    return found, runs


def test_a_u_net_takes_sizes_that_no_downsampling_divides(tmp_path: Path) -> None:
    found, (odd, _) = _runs("sd", tmp_path)

    assert odd is not None
    sample = odd.calls["unet.forward"].tensors()["sample"]
    assert all(size % 2 for size in sample.shape[2:])
    assert odd.moving == found.moving


def test_patches_are_not_cut_through(tmp_path: Path) -> None:
    _, (odd, even) = _runs("sd3", tmp_path)

    assert odd is None
    assert even is not None
    sample = even.calls["transformer.forward"].tensors()["hidden_states"]
    assert all(size % 4 == 2 for size in sample.shape[2:])
