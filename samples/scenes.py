"""Procedural scenes of one or two flat shapes, and the captions that describe them.

A scene is a 64x64 RGB picture on a plain light ground. A caption names every object (colour and
shape) and either the place of the only object or the relation between the two. The captions with
two objects are split into a training and a held-out part: a combination of two objects and their
arrangement is held out in both of its wordings ("a left of b" and "b right of a").
"""

import hashlib
from dataclasses import dataclass, field
from functools import cache
from itertools import product

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64
SHAPES = ("circle", "square", "triangle")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 48, 44),
    "green": (44, 164, 72),
    "blue": (42, 92, 214),
    "yellow": (244, 196, 28),
    "purple": (146, 52, 176),
}
PLACES: dict[str, tuple[float, float]] = {
    "on the left": (16.5, 32.0),
    "in the middle": (32.0, 32.0),
    "on the right": (47.5, 32.0),
    "at the top": (32.0, 16.5),
    "at the bottom": (32.0, 47.5),
}
RELATIONS: dict[str, tuple[str, str]] = {
    "left of": ("on the left", "on the right"),
    "right of": ("on the right", "on the left"),
    "above": ("at the top", "at the bottom"),
    "below": ("at the bottom", "at the top"),
}
MIRRORED = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
SUPERSAMPLING = 4
HELD_OUT_SCENES = 110


@dataclass(frozen=True, order=True)
class Figure:
    """What a caption says about one object.

    Attributes:
        shape: One of ``SHAPES``.
        colour: A key of ``COLOURS``.
    """

    shape: str
    colour: str

    def __str__(self) -> str:
        return f"a {self.colour} {self.shape}"


@dataclass(frozen=True)
class Caption:
    """The meaning of one caption.

    Attributes:
        figures: One or two figures, in the order in which they are named.
        where: A key of ``PLACES`` for one figure, a key of ``RELATIONS`` for two.
    """

    figures: tuple[Figure, ...]
    where: str

    def __str__(self) -> str:
        return f" {self.where} ".join(str(figure) for figure in self.figures) + (
            f" {self.where}" if len(self.figures) == 1 else ""
        )

    @property
    def places(self) -> tuple[str, ...]:
        """The place of every figure, in the order of ``figures``."""
        return (self.where,) if len(self.figures) == 1 else RELATIONS[self.where]

    @property
    def mirrored(self) -> "Caption":
        """The other wording of the same scene; a caption of one figure has none but itself."""
        if len(self.figures) == 1:
            return self
        return Caption(self.figures[::-1], MIRRORED[self.where])


@dataclass(frozen=True)
class Jitter:
    """How far a rendered scene may stray from the plain one.

    Attributes:
        along: Greatest shift in pixels towards or away from the other object.
        across: Greatest shift in pixels along the other axis.
        sizes: Smallest and greatest diameter of an object in pixels.
        shade: Greatest change of each colour channel, in levels of 255.
        ground: Darkest and lightest level of the ground.
    """

    along: float = 2.0
    across: float = 3.0
    sizes: tuple[float, float] = (20.0, 24.5)
    shade: int = 10
    ground: tuple[int, int] = field(default=(228, 248))


def _figures() -> list[Figure]:
    return [Figure(shape, colour) for colour, shape in product(COLOURS, SHAPES)]


def parse(text: str) -> Caption:
    """Reads a caption.

    Args:
        text: A caption of this grammar.

    Returns:
        Its meaning.

    Raises:
        ValueError: The text is not a caption of this grammar.
    """
    caption = _meanings().get(text)
    if caption is None:
        raise ValueError(f"not a caption of the scenes: {text!r}")
    return caption


@cache
def _meanings() -> dict[str, Caption]:
    return {str(caption): caption for caption in (*single_captions(), *pair_captions())}


@cache
def single_captions() -> tuple[Caption, ...]:
    """All captions of one object; all of them are trained on."""
    return tuple(Caption((figure,), place) for figure in _figures() for place in PLACES)


@cache
def pair_captions() -> tuple[Caption, ...]:
    """All captions of two different objects, in both wordings."""
    figures = _figures()
    return tuple(
        Caption((first, second), relation)
        for first, second, relation in product(figures, figures, RELATIONS)
        if first != second
    )


@cache
def held_out_captions() -> tuple[Caption, ...]:
    """The captions that no training script ever sees, in a fixed shuffled order."""
    canonical = [c for c in pair_captions() if c.where in ("left of", "above")]
    chosen = sorted(canonical, key=_digest)[:HELD_OUT_SCENES]
    return tuple(sorted([*chosen, *(c.mirrored for c in chosen)], key=_digest))


@cache
def training_captions() -> tuple[Caption, ...]:
    """All captions that are not held out: those of one object and most of those of two."""
    held_out = set(held_out_captions())
    return (*single_captions(), *(c for c in pair_captions() if c not in held_out))


def _digest(caption: Caption) -> bytes:
    return hashlib.sha256(str(caption).encode()).digest()


def render(caption: Caption, rng: np.random.Generator, jitter: Jitter | None = None) -> np.ndarray:
    """Draws one picture of a caption.

    Args:
        caption: What to draw.
        rng: Source of the places, sizes and shades.
        jitter: How far these may stray; the default of ``Jitter`` if left out.

    Returns:
        The picture, uint8 ``[SIZE, SIZE, 3]``, 0 to 255.
    """
    jitter = jitter or Jitter()
    side = SIZE * SUPERSAMPLING
    ground = int(rng.integers(jitter.ground[0], jitter.ground[1] + 1))
    canvas = Image.new("RGB", (side, side), (ground, ground, ground))
    pen = ImageDraw.Draw(canvas)
    for figure, place in zip(caption.figures, caption.places, strict=True):
        x, y = PLACES[place]
        upright = place in ("at the top", "at the bottom")
        reach_x, reach_y = (
            (jitter.across, jitter.along) if upright else (jitter.along, jitter.across)
        )
        x += rng.uniform(-reach_x, reach_x)
        y += rng.uniform(-reach_y, reach_y)
        shift = rng.integers(-jitter.shade, jitter.shade + 1, size=3)
        colour = tuple(int(v) for v in np.clip(np.array(COLOURS[figure.colour]) + shift, 0, 255))
        _draw(pen, figure.shape, (x, y), rng.uniform(*jitter.sizes), colour)
    return np.asarray(canvas.reduce(SUPERSAMPLING), dtype=np.uint8)


def outline(shape: str, centre: tuple[float, float], diameter: float) -> np.ndarray:
    """The corners of a square or a triangle.

    Args:
        shape: ``square`` or ``triangle``.
        centre: The middle of the bounding box (square) or its like (triangle), in pixels.
        diameter: Nominal diameter in pixels.

    Returns:
        Corners as float64 ``[corners, 2]``, x and y in pixels.
    """
    x, y = centre
    if shape == "square":
        half = 0.45 * diameter
        return np.array(
            [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
        )
    half, up, down = 0.56 * diameter, 0.52 * diameter, 0.46 * diameter
    return np.array([(x, y - up), (x + half, y + down), (x - half, y + down)])


def _draw(
    pen: ImageDraw.ImageDraw,
    shape: str,
    centre: tuple[float, float],
    diameter: float,
    colour: tuple[int, ...],
) -> None:
    scale = SUPERSAMPLING
    if shape == "circle":
        x, y, half = centre[0] * scale, centre[1] * scale, diameter * scale / 2
        pen.ellipse((x - half, y - half, x + half, y + half), fill=colour)
        return
    corners = outline(shape, centre, diameter) * scale
    pen.polygon([(float(x), float(y)) for x, y in corners], fill=colour)


def render_many(captions: list[Caption], seed: int) -> np.ndarray:
    """Draws one picture per caption from a fixed seed.

    Args:
        captions: What to draw.
        seed: Seed of places, sizes and shades.

    Returns:
        The pictures, uint8 ``[len(captions), SIZE, SIZE, 3]``.
    """
    rng = np.random.default_rng(seed)
    return np.stack([render(caption, rng) for caption in captions])
