from __future__ import annotations

import hashlib

import pytest
import torch

from qdx.exporter.errors import InvalidModel, StorageError
from qdx.runtime.tensor_folder import TensorFolder, rank_of


@pytest.fixture
def folder(tmp_path):
    return TensorFolder(tmp_path)


def files(folder):
    return sorted(path.name for path in folder.path.iterdir())


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        torch.float64,
        torch.float16,
        torch.int64,
        torch.bool,
        torch.complex64,
        torch.complex128,
    ],
)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)], ids=str)
def test_tensors_come_back_with_their_bits(folder, dtype, shape):
    tensor = (torch.randn(shape) * 3).to(dtype)
    stored = folder.store({"x": tensor})

    assert stored["x"].dtype == dtype
    assert torch.equal(stored["x"], tensor)
    assert rank_of(stored, "x") == rank_of({"x": tensor}, "x") == len(shape)


def test_nan_comes_back_as_nan(folder):
    assert folder.store({"x": torch.tensor([torch.nan, 1.0])})["x"].isnan().tolist() == [
        True,
        False,
    ]


def test_a_view_is_stored_as_what_it_shows(folder):
    base = torch.arange(6.0).reshape(2, 3)

    assert torch.equal(folder.store({"x": base.T})["x"], base.T)
    turned = torch.complex(base, base + 1).conj()
    assert torch.equal(folder.store({"x": turned})["x"], turned)


def test_equal_tensors_are_one_file_named_by_its_digest(folder):
    one = folder.store({"a": torch.ones(3), "b": torch.ones(3)})
    folder.store({"c": torch.ones(3), "d": torch.ones(3, dtype=torch.int64), "e": torch.ones(1, 3)})

    assert len(files(folder)) == 3
    (digest,) = set(one.digests.values())
    assert (
        hashlib.sha256((folder.path / f"{digest}.safetensors").read_bytes()).hexdigest() == digest
    )


def test_what_is_dropped_goes_with_its_last_use(folder):
    one = folder.store({"prompt": torch.ones(3), "latents": torch.zeros(3)})
    other = folder.store({"prompt": torch.ones(3)})
    folder.drop(one)

    assert torch.equal(other["prompt"], torch.ones(3))
    assert len(files(folder)) == 1
    folder.drop(other)
    assert files(folder) == []


def test_reading_changes_nothing_on_disk(folder):
    stored = folder.store({"x": torch.zeros(3)})
    stored["x"].add_(1)

    assert torch.equal(stored["x"], torch.zeros(3))


def test_a_damaged_file_is_refused(folder):
    stored = folder.store({"x": torch.zeros(3)})
    path = folder.path / files(folder)[0]
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(InvalidModel, match=path.name):
        stored["x"]
    path.unlink()
    with pytest.raises((InvalidModel, StorageError), match=path.name):
        stored["x"]


def test_a_full_disk_is_a_storage_error(folder):
    folder.path.rmdir()

    with pytest.raises(StorageError, match="cannot be written"):
        folder.store({"x": torch.zeros(3)})
