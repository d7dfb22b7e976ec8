"""Slot accuracy of bundles against float: paired by caption, and the plans of the measurements."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from qdx.exporter.plan.schema.load import load_plan  # noqa: E402
from samples.measure_bundles import compare, score  # noqa: E402
from samples.scenes import held_out_captions, parse, render_many  # noqa: E402
from tests.support.layers import ROOT  # noqa: E402

PLANS = sorted((ROOT / "samples" / "plans").glob("*.json"))
CAPTIONS = [str(caption) for caption in held_out_captions()[:12]]


class Painter:
    """A pipeline that paints what is asked for, or another caption instead of every n-th."""

    def __init__(self, wrong_every: int = 0) -> None:
        self.wrong_every = wrong_every
        self.calls: list[int] = []
        self._seen = 0

    def __call__(self, captions: list[str], **options: object) -> SimpleNamespace:
        self.calls.append(len(captions))
        painted = []
        for caption in captions:
            self._seen += 1
            wrong = self.wrong_every and self._seen % self.wrong_every == 0
            painted.append(CAPTIONS[(CAPTIONS.index(caption) + 5) % 12] if wrong else caption)
        pictures = render_many([parse(caption) for caption in painted], seed=3)
        return SimpleNamespace(images=pictures.astype(np.float32) / 255)


def scored(painter: Painter, batch: int = 4):
    return score("test", painter, CAPTIONS, steps=1, guidance=1.0, batch=batch)


def test_right_pictures_have_every_slot() -> None:
    found = scored(Painter())
    assert found.slots.tolist() == [1.0] * 12
    assert found.pictures.shape == (12, 64, 64, 3)
    assert (found.fits > 0.9).all()


@pytest.mark.parametrize(("batch", "calls"), [(1, [1] * 12), (5, [5, 5, 2]), (12, [12])])
def test_batches_are_those_of_the_bundle(batch: int, calls: list[int]) -> None:
    painter = Painter()
    scored(painter, batch)
    assert painter.calls == calls


def test_a_bundle_that_draws_alike_loses_nothing() -> None:
    reference = scored(Painter())
    loss = compare("same", reference, scored(Painter()))
    assert (loss.difference, loss.low, loss.high) == (0, 0, 0)
    assert loss.psnr_db > 100


def test_wrong_pictures_are_seen() -> None:
    loss = compare("worse", scored(Painter()), scored(Painter(wrong_every=3)))
    assert loss.accuracy < loss.float_accuracy == 1
    assert loss.low <= loss.difference == pytest.approx(loss.accuracy - 1)
    assert loss.high < 0
    assert loss.psnr_db < 40


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_plans_of_the_measurements_are_good(path: Path) -> None:
    assert load_plan(path).name == path.stem
