"""The grammar of the scenes, their split and their renderer."""

import numpy as np
import pytest

from samples import scenes


def test_every_caption_is_read_back() -> None:
    for caption in (*scenes.single_captions(), *scenes.pair_captions()):
        assert scenes.parse(str(caption)) == caption


def test_wordings() -> None:
    red = scenes.Figure("circle", "red")
    blue = scenes.Figure("square", "blue")
    assert str(scenes.Caption((red, blue), "left of")) == "a red circle left of a blue square"
    assert str(scenes.Caption((red,), "in the middle")) == "a red circle in the middle"
    mirrored = scenes.Caption((red, blue), "above").mirrored
    assert str(mirrored) == "a blue square below a red circle"


@pytest.mark.parametrize("text", ["", "a red circle", "a red circle near a blue square"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a caption"):
        scenes.parse(text)


def test_held_out_scenes_are_never_trained_on() -> None:
    held_out = set(scenes.held_out_captions())
    training = set(scenes.training_captions())
    assert len(held_out) == 2 * scenes.HELD_OUT_SCENES >= 200
    assert not held_out & training
    assert not {caption.mirrored for caption in held_out} & training
    assert len(held_out | training) == len(scenes.single_captions()) + len(scenes.pair_captions())


def test_split_stays_as_it_is() -> None:
    first = [str(caption) for caption in scenes.held_out_captions()[:3]]
    assert first == [
        "a yellow square left of a purple circle",
        "a green square below a red square",
        "a blue circle left of a blue triangle",
    ]


def test_pictures_are_repeatable_and_plain() -> None:
    captions = list(scenes.held_out_captions()[:8])
    pictures = scenes.render_many(captions, seed=1)
    assert pictures.shape == (8, scenes.SIZE, scenes.SIZE, 3)
    assert pictures.dtype == np.uint8
    np.testing.assert_array_equal(pictures, scenes.render_many(captions, seed=1))
    assert (pictures != scenes.render_many(captions, seed=2)).any()
    lowest = scenes.Jitter().ground[0]
    assert (pictures[:, 0, 0] >= lowest).all()


def test_both_wordings_draw_the_same_places() -> None:
    caption = scenes.parse("a red circle above a blue square")
    assert caption.places == caption.mirrored.places[::-1]
