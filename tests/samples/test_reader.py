"""The reader: right on rendered scenes, soft ones too, and not fooled by wrong ones."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from samples import scenes
from samples.reader import read, slot_accuracy


@pytest.fixture(scope="module")
def captions() -> list[scenes.Caption]:
    return [
        *scenes.single_captions(),
        *scenes.held_out_captions(),
        *scenes.training_captions()[75:],
    ]


@pytest.fixture(scope="module")
def pictures(captions: list[scenes.Caption]) -> np.ndarray:
    return scenes.render_many(captions, seed=11)


def _mean(pictures: np.ndarray, captions: list[scenes.Caption]) -> float:
    pairs = zip(pictures, captions, strict=True)
    return float(np.mean([slot_accuracy(picture, str(caption)) for picture, caption in pairs]))


@pytest.mark.slow  # by default, soft scenes are read, which are harder
def test_rendered_scenes(pictures: np.ndarray, captions: list[scenes.Caption]) -> None:
    assert len(captions) >= 500
    assert _mean(pictures, captions) >= 0.99


def test_soft_and_noisy_scenes(pictures: np.ndarray, captions: list[scenes.Caption]) -> None:
    noise = np.random.default_rng(12).normal(0, 6, pictures.shape)
    blur = ImageFilter.GaussianBlur(1.2)
    soft = np.stack([np.asarray(Image.fromarray(p).filter(blur)) for p in pictures])
    assert _mean(((soft + noise) / 255).clip(0, 1)[::2], captions[::2]) >= 0.99


def test_what_is_found() -> None:
    caption = scenes.parse("a green triangle left of a yellow circle")
    found = read(scenes.render(caption, np.random.default_rng(0)))
    assert {(thing.shape, thing.colour) for thing in found} == {
        ("triangle", "green"),
        ("circle", "yellow"),
    }
    left, right = sorted(found, key=lambda thing: thing.position[0])
    assert (left.colour, right.colour) == ("green", "yellow")
    assert all(150 < thing.area < 500 and thing.fit > 0.85 for thing in found)


@pytest.mark.parametrize(
    ("drawn", "share"),
    [
        ("a red circle left of a blue square", 1.0),
        ("a blue square right of a red circle", 1.0),
        ("a red circle right of a blue square", 0.8),
        ("a red circle above a blue square", 0.8),
        ("a red circle left of a blue triangle", 0.8),
        ("a green circle left of a blue square", 0.8),
        ("a yellow triangle left of a purple triangle", 0.2),
        ("a red circle on the left", 0.4),
        ("a blue square on the right", 0.4),
    ],
)
def test_planted_scenes(drawn: str, share: float) -> None:
    picture = scenes.render(scenes.parse(drawn), np.random.default_rng(3))
    assert slot_accuracy(picture, "a red circle left of a blue square") == pytest.approx(share)


def test_one_object_too_many_costs_the_place() -> None:
    picture = scenes.render(
        scenes.parse("a red circle left of a blue square"), np.random.default_rng(3)
    )
    assert slot_accuracy(picture, "a red circle on the left") <= 2 / 3 + 1e-9


@pytest.mark.parametrize("level", [0, 128, 240, 255])
def test_empty_pictures_fill_no_slot(level: int) -> None:
    plain = np.full((scenes.SIZE, scenes.SIZE, 3), level, np.uint8)
    assert slot_accuracy(plain, "a red circle left of a blue square") == 0.0


def test_noise_fills_few_slots() -> None:
    noise = np.random.default_rng(4).integers(0, 256, (16, scenes.SIZE, scenes.SIZE, 3), np.uint8)
    shares = [slot_accuracy(picture, "a red circle above a blue square") for picture in noise]
    assert np.mean(shares) < 0.4


def test_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match="64x64x3"):
        read(np.zeros((32, 32, 3), np.uint8))
