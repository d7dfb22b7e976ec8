"""Exports the bundles that others load, and draws a picture with each of them.

Runs where qdx is installed: `python -m tests.interop.prepare FOLDER [NAME...]`. `test_loaders.py`
then runs where the loaders are. FOLDER holds, for each case:

    <case>/source            the pipeline folder
    <case>/call.json         arguments of the call; pictures are file names
    <case>/<target>/         the bundle
    <case>/<target>.npy      the picture that `qdx.open` draws with it: float32, height by width by 3
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

TARGETS = ("onnxruntime", "openvino")
SEED = 0


@dataclass(frozen=True)
class Case:
    """A pipeline that is exported and drawn.

    Attributes:
        family: A tiny pipeline of `tests.support.tiny`, with random weights; or None.
        sample: A trained pipeline in `samples/`; or None.
        call: Arguments of its call, where the family says none.
        shapes: As `qdx export --shapes`.
    """

    family: str | None = None
    sample: str | None = None
    call: Mapping[str, Any] | None = None
    shapes: Literal["static", "dynamic"] = "dynamic"


CASES: Mapping[str, Case] = {
    "sd": Case("sd"),
    "sdxl": Case("sdxl"),
    "sd3": Case("sd3"),
    "flux": Case("flux"),
    "sd-img2img": Case("sd-img2img"),
    "sd-static": Case("sd", shapes="static"),
    "shapes": Case(
        sample="shapes",
        call={"prompt": "a large red circle at the left", "num_inference_steps": 10},
    ),
}


def main() -> None:
    """Prepares the cases that are named, or all."""
    root, *names = sys.argv[1:]
    for name in names or CASES:
        prepare(CASES[name], Path(root) / name)


def prepare(case: Case, folder: Path) -> None:
    """Writes everything about a case into its folder."""
    import qdx

    folder.mkdir(parents=True, exist_ok=True)
    source = _source(case, folder)
    call = _call(case, folder)
    for target in TARGETS:
        bundle = folder / target
        named = {key: _path(value, folder) for key, value in call.items()}
        qdx.export(
            source,
            target=target,
            plan="float32",
            shapes=case.shapes,
            call=named,
            output=bundle,
            force=True,
        )
        np.save(folder / f"{target}.npy", draw(qdx.open(bundle, threads=1), call, folder))


def draw(pipeline: Any, call: Mapping[str, Any], folder: Path) -> np.ndarray:
    """The picture that a diffusers-like pipeline draws: float32 from 0 to 1, height by width by 3."""
    import torch

    arguments = {key: _opened(value, folder) for key, value in call.items()}
    generator = torch.Generator("cpu").manual_seed(SEED)
    return pipeline(**arguments, generator=generator, output_type="np").images[0]


def _source(case: Case, folder: Path) -> Path:
    source = folder / "source"
    if source.exists():
        shutil.rmtree(source)
    if case.sample is not None:
        shutil.copytree(Path("samples", case.sample), source)
    else:
        from tests.support.tiny import build

        build(case.family, source)
    return source


def _call(case: Case, folder: Path) -> dict[str, Any]:
    call = dict(case.call or {})
    if case.family is not None:
        from tests.support.tiny import FAMILIES, write_inputs

        write_inputs(case.family, folder)
        call |= FAMILIES[case.family].call
    (folder / "call.json").write_text(json.dumps(call))
    return call


def _path(value: Any, folder: Path) -> Any:
    return str(folder / value) if _is_picture(value) else value


def _opened(value: Any, folder: Path) -> Any:
    return Image.open(folder / value) if _is_picture(value) else value


def _is_picture(value: Any) -> bool:
    return isinstance(value, str) and value.endswith(".png")


if __name__ == "__main__":
    main()
