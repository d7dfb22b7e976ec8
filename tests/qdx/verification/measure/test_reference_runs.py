from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from qdx.cache.store import Store
from qdx.exporter.capture.folder import read_pipeline_folder
from qdx.runtime.generate import generate
from qdx.verification.measure import reference_runs
from qdx.verification.measure.outlook import UNKNOWN
from qdx.verification.measure.recorded_run import INDEX_NAME
from qdx.verification.measure.reference_runs import Reference
from qdx.verification.measure.samples import RunSpec


def bundle_of(folder, **manifest):
    """What a reference wants to know of a bundle."""
    source = SimpleNamespace(files={"a": "b"}, lora=())
    value = {"source": source, "components": {}, "left_out": (), "omitted": ()}
    return SimpleNamespace(manifest=SimpleNamespace(**{**value, **manifest}))


@pytest.fixture
def make(sd, tmp_path):
    """A reference of the tiny pipeline with an own folder for its runs."""
    folder = read_pipeline_folder(sd.folder)
    numbers = iter(range(100))

    def build(store=None):
        work = tmp_path / f"work-{next(numbers)}"
        work.mkdir()
        return Reference(folder, bundle_of(sd.folder), work=work, store=store)

    return build


@pytest.fixture
def spec(sd):
    return RunSpec(sd.call, 0)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_a_run_on_disk_is_the_run_in_memory(make, spec, sd):
    run = make().run(spec)

    assert (run.made.products["images"] == sd.products["images"]).all()
    assert list(run.records) == list(sd.records)
    for where, record in sd.records.items():
        stored = run.records[where].calls
        for call in record.calls:
            (found,) = (one for one in stored if one.index == call.index)
            assert all(torch.equal(found.outputs[n], t) for n, t in call.outputs.items())


def test_every_call_is_on_record(make, spec):
    record = make().run(spec).records["unet.forward"]

    assert len(record.calls) == record.times_called


def test_the_second_reference_finds_the_run_and_loads_no_weights(make, spec, store, monkeypatch):
    one = make(store)
    first = one.run(spec)
    monkeypatch.setattr(reference_runs, "ComponentWeights", None)
    other = make(store)
    second = other.run(spec)

    assert (one.use.ran, one.use.cached) == (1, 0)
    assert (other.use.ran, other.use.cached) == (0, 1)
    assert second.path.is_relative_to(store.root)
    assert (first.made.products["images"] == second.made.products["images"]).all()


def test_another_seed_is_another_run(make, spec, store):
    reference = make(store)
    reference.run(spec)
    reference.run(RunSpec(spec.call, 1))

    assert reference.use.ran == 2
    assert [entry.kind for entry in store.entries()] == ["reference-runs"] * 2


def test_without_a_store_nothing_is_kept(make, spec):
    reference = make()
    for _ in range(2):
        reference.run(spec)

    assert (reference.use.ran, reference.use.notes) == (2, [])


def test_a_damaged_entry_is_made_anew_and_said(make, spec, store, tmp_path):
    expected = make(store).run(spec).made.products["images"]
    (entry,) = store.entries()
    path = next(entry.path.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    other = Store(store.root)
    reference = make(other)
    found = reference.run(spec).made.products["images"]

    assert (found == expected).all()
    assert (reference.use.ran, reference.use.cached) == (1, 0)
    assert "damaged entry was removed" in other.notes[0]
    again = make(Store(store.root))
    again.run(spec)
    assert (again.use.ran, again.use.cached) == (0, 1)


def test_an_entry_whose_index_is_wrong_is_not_used_and_said(make, spec, store):
    """Its digests hold, as where another version of qdx had written it."""
    first = make(store)
    key = first._identity.key(spec)
    with store.adding("reference-runs", key) as folder:
        (folder / INDEX_NAME).write_text("{}")
    reference = make(store)

    assert reference.run(spec).made.products
    assert (reference.use.ran, reference.use.cached) == (1, 0)
    assert "damaged and is made anew" in reference.use.notes[0]


def test_a_call_that_is_no_plain_data_is_not_kept_and_said(make, spec, store):
    reference = make(store)
    seen = []

    def watch(pipeline, step, timestep, tensors):
        seen.append(step)
        return {}

    reference.run(RunSpec({**spec.call, "callback_on_step_end": watch}, 0))

    assert seen
    assert not store.root.exists()
    assert "not kept" in reference.use.notes[0]


def test_latents_of_the_last_step_are_kept(make, spec, sd):
    latents = make().run(spec).made.latents
    final = generate(sd.pipeline, {**sd.call, "output_type": "latent"}, seed=0)["images"]

    assert latents is not None
    assert torch.equal(latents.double(), torch.from_numpy(final))


def test_a_released_reference_has_no_pipeline(make, spec):
    reference = make()
    reference.run(spec)
    reference.release()

    assert reference.pipeline is None
    with pytest.raises(AssertionError, match="released"):
        reference._record(spec, UNKNOWN)
