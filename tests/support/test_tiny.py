"""Every tiny family builds to the same bytes twice and runs in PyTorch."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.tiny import FAMILIES, Family, build, load, write_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if family.heavy else [])
    for name, family in FAMILIES.items()
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders built so far, by family."""
    return {"root": tmp_path_factory.mktemp("tiny")}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Hold PyTorch to one thread: with tensors this small, more of them only wait."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def folder_of(name: str, folders: dict[str, Path]) -> Path:
    if name not in folders:
        folders[name] = build(name, folders["root"] / name)
    return folders[name]


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def run(family: Family, pipeline: Any, **arguments: Any) -> Any:
    import numpy as np
    import torch

    kind = "pt" if family.output == "audios" else "np"
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        result = pipeline(**arguments, generator=generator, output_type=kind)
    return np.asarray(getattr(result, family.output))


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_bytes(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    first = digests(folder_of(name, folders))
    assert digests(build(name, tmp_path / "again")) == first
    other = digests(build(name, tmp_path / "other", seed=1))
    assert other.keys() == first.keys()
    weights = {file for file in first if file.endswith(".safetensors")}
    assert weights
    assert all(other[file] != first[file] for file in weights)


@pytest.mark.parametrize("name", NAMES)
def test_folder_is_small_and_holds_no_pickle(name: str, folders: dict[str, Path]) -> None:
    files = [path for path in folder_of(name, folders).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".txt", ".jinja"}


@pytest.mark.parametrize("name", NAMES)
def test_no_parameter_is_constant(name: str, folders: dict[str, Path]) -> None:
    from safetensors import safe_open

    for file in folder_of(name, folders).rglob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - a safetensors handle is no mapping
                value = tensors.get_tensor(key)
                assert value.isfinite().all(), f"{file.parent.name}: {key}"
                if value.numel() > 1 and value.is_floating_point():
                    assert value.std() > 0, f"{file.parent.name}: {key}"


@pytest.mark.parametrize("name", NAMES)
def test_runs_in_pytorch(name: str, folders: dict[str, Path]) -> None:
    import numpy as np

    family = FAMILIES[name]
    pipeline = load(name, folder_of(name, folders))
    first = run(family, pipeline, **family.arguments())
    assert np.isfinite(first).all()
    assert first.std() > 0.01
    assert np.array_equal(run(family, pipeline, **family.arguments()), first)
    other = run(family, pipeline, **family.arguments(other=True))
    assert np.isfinite(other).all()
    assert other.std() > 0.01
    assert other.shape[0] > first.shape[0]


@pytest.mark.parametrize("name", [p for p in NAMES if "prompt" in FAMILIES[str(p.values[0])].call])
def test_prompt_changes_the_output(name: str, folders: dict[str, Path]) -> None:
    import numpy as np

    family = FAMILIES[name]
    pipeline = load(name, folder_of(name, folders))
    call = family.arguments()
    first = run(family, pipeline, **call)
    call["prompt"] = "a quiet piano at night"
    assert np.abs(run(family, pipeline, **call) - first).mean() > 1e-3


@pytest.mark.parametrize("name", [n for n, family in FAMILIES.items() if family.images])
def test_inputs_are_written(name: str, tmp_path: Path) -> None:
    from PIL import Image

    for path in write_inputs(name, tmp_path):
        with Image.open(path) as image:
            size = "x".join(map(str, image.size))
        assert size in path.name
