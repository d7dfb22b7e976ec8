"""Reads a picture of a scene back: which objects it shows, and where.

The reader is deterministic and learns nothing. It estimates the ground, labels what stands out by
the nearest colour of the palette, splits that into connected regions and compares the soft outline
of each region with the three shapes drawn at the same place and of the same area. Soft edges, as a
decoder leaves them, cost it little.
"""

from dataclasses import dataclass

import numpy as np

from samples.scenes import COLOURS, PLACES, SHAPES, SIZE, Caption, Figure, parse

LEAST_AREA = 60.0
EDGE_GRID = 4


@dataclass(frozen=True)
class Object:
    """One object found in a picture.

    Attributes:
        shape: One of ``SHAPES``.
        colour: A key of ``COLOURS``.
        position: Centre of mass, x and y in pixels, 0 to ``SIZE``.
        area: Area in pixels.
        fit: Overlap with the drawn shape, 0 to 1.
    """

    shape: str
    colour: str
    position: tuple[float, float]
    area: float
    fit: float


def read(image: np.ndarray) -> list[Object]:
    """Finds the objects of a picture.

    Args:
        image: ``[SIZE, SIZE, 3]``, uint8 0 to 255 or floating 0 to 1.

    Returns:
        The objects, greatest first.
    """
    pixels = _levels(image)
    ground = _ground(pixels)
    palette = np.array(list(COLOURS.values()), dtype=np.float64)
    towards = palette - ground
    offset = pixels - ground
    # How much of each colour a pixel holds, if it is a mixture of the ground and that colour only.
    share = offset @ towards.T / (towards**2).sum(1)
    rest = np.linalg.norm(offset[:, :, None] - share[..., None].clip(0, 1.2) * towards, axis=-1)
    label = rest.argmin(-1)
    cover = np.take_along_axis(share, label[..., None], -1)[..., 0].clip(0, 1)
    found = []
    for region in _regions(cover > 0.5):
        votes = np.bincount(label[region], weights=cover[region] ** 4, minlength=len(palette))
        colour = int(votes.argmax())
        soft = np.where(_grown(region), share[..., colour].clip(0, 1), 0.0)
        if soft.sum() >= LEAST_AREA:
            found.append(_object(soft, list(COLOURS)[colour]))
    return sorted(found, key=lambda o: -o.area)


def slot_accuracy(image: np.ndarray, caption: str) -> float:
    """Compares a picture with its caption.

    The slots are colour and shape of every object named, and the place of the only object or the
    relation of the two. The last is right only where the picture shows just as many objects as
    the caption names.

    Args:
        image: ``[SIZE, SIZE, 3]``, uint8 0 to 255 or floating 0 to 1.
        caption: A caption of the grammar of ``samples.scenes``.

    Returns:
        The share of the slots that the picture fills rightly, 0 to 1.
    """
    wanted = parse(caption)
    objects = read(image)
    count = len(wanted.figures)
    seen = objects[:count]
    orders = [seen, seen[::-1]] if len(seen) == 2 else [seen, [None, *seen]][: max(count, 1)]
    best = max(_right_slots(order, wanted, len(objects)) for order in orders)
    return best / (2 * count + 1)


def _right_slots(seen: list[Object | None], wanted: Caption, shown: int) -> int:
    right = 0
    for thing, figure in zip(seen, wanted.figures, strict=False):
        if thing is not None:
            right += _right_figure(thing, figure)
    if shown == len(wanted.figures):
        right += _place([thing for thing in seen if thing is not None]) == wanted.where
    return right


def _right_figure(thing: Object, figure: Figure) -> int:
    return (thing.shape == figure.shape) + (thing.colour == figure.colour)


def _place(things: list[Object]) -> str:
    if len(things) == 1:
        x, y = things[0].position
        return min(PLACES, key=lambda p: (PLACES[p][0] - x) ** 2 + (PLACES[p][1] - y) ** 2)
    (x0, y0), (x1, y1) = things[0].position, things[1].position
    if abs(x0 - x1) > abs(y0 - y1):
        return "left of" if x0 < x1 else "right of"
    return "above" if y0 < y1 else "below"


def _levels(image: np.ndarray) -> np.ndarray:
    if image.shape != (SIZE, SIZE, 3):
        raise ValueError(f"a picture of {SIZE}x{SIZE}x3 is needed, not {image.shape}")
    scale = 1.0 if image.dtype == np.uint8 else 255.0
    return image.astype(np.float64) * scale


def _ground(pixels: np.ndarray) -> np.ndarray:
    flat = pixels.reshape(-1, 3)
    dull = flat.max(1) - flat.min(1) < 40
    light = flat.min(1) > 190
    plain = flat[dull & light]
    return np.median(plain if len(plain) >= 200 else flat, axis=0)


def _regions(mask: np.ndarray) -> list[np.ndarray]:
    """Splits a mask into its 4-connected regions, bool ``[SIZE, SIZE]`` each."""
    left = mask.copy()
    regions = []
    while left.any():
        region = np.zeros_like(left)
        stack = [tuple(int(v) for v in np.argwhere(left)[0])]
        left[stack[0]] = False
        while stack:
            y, x = stack.pop()
            region[y, x] = True
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= near[0] < SIZE and 0 <= near[1] < SIZE and left[near]:
                    left[near] = False
                    stack.append(near)
        regions.append(region)
    return regions


def _grown(region: np.ndarray) -> np.ndarray:
    """A region and its 8-neighbours, bool ``[SIZE, SIZE]``."""
    padded = np.pad(region, 1)
    shifts = [padded[dy : dy + SIZE, dx : dx + SIZE] for dy in range(3) for dx in range(3)]
    return np.logical_or.reduce(shifts)


def _object(soft: np.ndarray, colour: str) -> Object:
    area = float(soft.sum())
    middle = np.arange(SIZE) + 0.5
    x = float((soft.sum(0) * middle).sum() / area)
    y = float((soft.sum(1) * middle).sum() / area)
    fits = {}
    for shape in SHAPES:
        drawn = _drawn(shape, x, y, area)
        fits[shape] = float(np.minimum(soft, drawn).sum() / np.maximum(soft, drawn).sum())
    shape = max(fits, key=fits.__getitem__)
    return Object(shape, colour, (x, y), area, fits[shape])


def _drawn(shape: str, x: float, y: float, area: float) -> np.ndarray:
    """Cover of an ideal shape of a given centre of mass and area, float64 ``[SIZE, SIZE]``, 0 to 1.

    The triangle has the proportions that ``samples.scenes.outline`` gives it.
    """
    fine = (np.arange(SIZE * EDGE_GRID) + 0.5) / EDGE_GRID
    dx, dy = np.meshgrid(fine - x, fine - y)
    if shape == "circle":
        inside = dx**2 + dy**2 <= area / np.pi
    elif shape == "square":
        inside = np.maximum(abs(dx), abs(dy)) <= np.sqrt(area) / 2
    else:
        base, height = 1.12, 0.98
        scale = np.sqrt(2 * area / (base * height))
        below_tip = dy + 2 / 3 * height * scale
        inside = (dy <= height * scale / 3) & (abs(dx) <= below_tip * base / height / 2)
    blocks = inside.reshape(SIZE, EDGE_GRID, SIZE, EDGE_GRID)
    return blocks.mean((1, 3))
