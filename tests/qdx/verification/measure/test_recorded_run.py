from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from qdx.runtime.reference import RecordedCall, RecordedMethod
from qdx.runtime.tensor_folder import TensorFolder
from qdx.verification.measure.recorded_run import INDEX_NAME, DamagedRun, RecordedRun

DIGEST = "0" * 64


def calls(folder, count):
    return tuple(
        RecordedCall(
            index,
            folder.store({"sample": torch.full((2, 2), float(index)), "prompt": torch.ones(3)}),
            folder.store({"b": torch.tensor(index), "a": torch.zeros(1)}),
        )
        for index in range(count)
    )


@pytest.fixture
def run(tmp_path):
    folder = TensorFolder(tmp_path)
    records = {
        "unet.forward": RecordedMethod(7, calls(folder, 3)),
        "a.first": RecordedMethod(1, calls(folder, 1)),
    }
    products = {"images": np.linspace(0, 1, 12).reshape(1, 2, 2, 3)}
    return RecordedRun.write(folder, products, torch.ones(2, 2), records)


def test_a_run_comes_back_as_it_was_written(run):
    again = RecordedRun.read(run.path)

    for one in (run, again):
        assert one.made.products["images"].dtype == np.float64
        assert (one.made.products["images"] == np.linspace(0, 1, 12).reshape(1, 2, 2, 3)).all()
        assert torch.equal(one.made.latents, torch.ones(2, 2))
        assert list(one.records) == ["unet.forward", "a.first"]
        record = one.records["unet.forward"]
        assert (record.times_called, [call.index for call in record.calls]) == (7, [0, 1, 2])
        assert list(record.calls[1].outputs) == ["b", "a"]
        assert torch.equal(record.calls[2].inputs["sample"], torch.full((2, 2), 2.0))


def test_a_run_without_latents_and_products_comes_back(tmp_path):
    RecordedRun.write(TensorFolder(tmp_path), {}, None, {})
    made = RecordedRun.read(tmp_path).made

    assert (made.products, made.latents) == ({}, None)


def test_outputs_that_nobody_reads_are_left_out(run):
    records = run.records_with({"unet.forward": frozenset({"a"})})

    assert list(records["unet.forward"].calls[0].outputs) == ["a"]
    assert list(records["a.first"].calls[0].outputs) == ["b", "a"]


def test_what_repeats_is_stored_once(run):
    names = [path.name for path in run.path.iterdir()]

    # Three samples, one of them the latents, the prompt, three numbers, one zero, the picture; the index.
    assert len(names) == 9 + 1


def change(run, change):
    path = run.path / INDEX_NAME
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: value.update(schema="qdx.reference/0"),
        lambda value: value.update(more=1),
        lambda value: value.pop("products"),
        lambda value: value["products"].append(["images", DIGEST]),
        lambda value: value["products"].append(["more", DIGEST]),
        lambda value: value["products"].append(["more", "../../secret"]),
        lambda value: value["methods"].append(value["methods"][0]),
        lambda value: value["methods"][0].update(times_called=2),
        lambda value: value["methods"][0].update(times_called="7"),
        lambda value: value["methods"][0]["calls"].reverse(),
        lambda value: value["methods"][0].update(calls=[]),
        lambda value: value["methods"][0]["calls"][0]["inputs"].append(["sample", DIGEST]),
    ],
)
def test_a_malformed_index_is_refused(run, damage):
    change(run, damage)

    with pytest.raises(DamagedRun):
        RecordedRun.read(run.path)


def test_files_that_are_cut_or_missing_or_no_json_are_refused(run):
    path = next(run.path.glob("*.safetensors"))
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(DamagedRun, match=path.name):
        RecordedRun.read(run.path)
    path.write_bytes(data)
    RecordedRun.read(run.path)
    (run.path / INDEX_NAME).write_text("{")
    with pytest.raises(DamagedRun, match=INDEX_NAME):
        RecordedRun.read(run.path)
