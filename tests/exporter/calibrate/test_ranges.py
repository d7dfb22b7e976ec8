"""Ranges: looked up, saved, loaded, and refused where they are not what was recorded."""

from __future__ import annotations

import os
import stat
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from qdx.exporter.calibrate.provenance import SCHEMA
from qdx.exporter.calibrate.ranges import GraphRanges, Ranges
from qdx.exporter.calibrate.ranges_file import dump_ranges, load_ranges, save_ranges
from qdx.exporter.errors import InvalidInput, StorageError
from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile
from qdx.exporter.plan.schema.scheme import Rotate
from tests.support.recording import BOUNDARIES, provenance, recorded


@pytest.fixture(scope="module")
def ranges():
    return recorded()[0]


@pytest.fixture
def saved(ranges, tmp_path):
    path = tmp_path / "ranges.safetensors"
    save_ranges(ranges, path)
    return path


def test_a_file_holds_the_same_to_the_bit(ranges, saved):
    loaded = load_ranges(saved)
    assert dump_ranges(loaded) == dump_ranges(ranges) == saved.read_bytes()
    assert loaded.provenance == ranges.provenance
    for port in ("input", "output"):
        one, other = (r.statistics("unet.forward", "layers.two", port) for r in (ranges, loaded))
        assert one.range("mse", bits=4) == other.range("mse", bits=4)
        assert torch.equal(one.channel_mean, other.channel_mean)
    assert loaded.groups("unet.forward") == BOUNDARIES
    assert loaded.timestep_input("unet.forward") == "sigma"
    assert loaded.timesteps("unet.forward") == (9.0, 1.0)


def test_recording_again_gives_the_same_bytes(ranges):
    assert dump_ranges(recorded()[0]) == dump_ranges(ranges)


def test_graphs_without_sites_are_kept(ranges, tmp_path):
    path = tmp_path / "ranges.safetensors"
    graphs = {**ranges.graphs, "vae.decode": GraphRanges((), (), (), {})}
    save_ranges(replace(ranges, graphs=graphs), path)
    assert load_ranges(path).groups("vae.decode") == ()


def test_how_inputs_were_rotated_is_kept_with_its_block(ranges, tmp_path):
    path = tmp_path / "ranges.safetensors"
    turned = {"layers.one": Rotate(hadamard="plain", block=4), "layers.two": Rotate(block=8)}
    graphs = {w: replace(one, rotated=turned) for w, one in ranges.graphs.items()}
    save_ranges(replace(ranges, graphs=graphs), path)
    assert load_ranges(path).graphs["unet.forward"].rotated == turned
    with pytest.raises(ValueError, match="a rotation without its block"):
        dump_ranges(
            Ranges({"unet.forward": replace(ranges.graphs["unet.forward"], rotated={"layers.one": Rotate()})}, provenance())
        )  # fmt: skip


def test_saving_replaces_and_leaves_nothing_else(ranges, saved):
    save_ranges(ranges, saved)
    assert list(saved.parent.iterdir()) == [saved]


def test_a_place_that_cannot_be_written_is_an_error(ranges, tmp_path):
    with pytest.raises(StorageError, match="cannot be written"):
        save_ranges(ranges, tmp_path / "missing" / "ranges.safetensors")


def test_the_file_tells_nothing_of_the_machine(saved):
    text = SafetensorsFile(saved).metadata[SCHEMA]
    assert str(saved.parent) not in text
    assert os.uname().nodename not in text


def test_what_was_not_recorded_is_named(ranges):
    with pytest.raises(
        InvalidInput, match=r"`probs` of site `layers.one` in `unet.forward` was not"
    ):
        ranges.statistics("unet.forward", "layers.one", "probs")
    with pytest.raises(InvalidInput, match=r"hold no `vae.decode`, only unet.forward"):
        ranges.statistics("vae.decode", "conv", "input")


def test_ranges_of_another_model_are_refused():
    ranges, sites = recorded()
    files = {"model_index.json": "0" * 64}
    ranges.check(files, {"unet.forward": sites})
    with pytest.raises(InvalidInput, match=r"`model_index.json` has SHA-256 0+, expected 2+"):
        ranges.check({"model_index.json": "2" * 64}, {})
    with pytest.raises(InvalidInput, match="`unet/x` has SHA-256 none, expected 3"):
        ranges.check({**files, "unet/x": "3" * 64}, {})
    with pytest.raises(InvalidInput, match=r"has no site `layers.out`, of which ranges"):
        ranges.check(files, {"unet.forward": sites[:2]})
    with pytest.raises(InvalidInput, match=r"site `new` of `unet.forward` was not recorded"):
        ranges.check(files, {"unet.forward": [*sites, replace(sites[0], key="new")]})


def test_recorded_groups_join_into_fewer():
    timesteps = tuple(float(t) for t in range(950, -50, -50))
    boundaries = tuple(float(t) for t in range(875, 75, -100))
    graph = GraphRanges(timesteps, boundaries, (), {})
    ranges = Ranges({"unet.forward": graph}, provenance())
    parts, groups = ranges.partition("unet.forward", 3)
    assert len(parts) == 2
    assert set(parts) <= set(boundaries)
    assert [g for part in groups for g in part] == list(range(len(boundaries) + 1))
    assert ranges.partition("unet.forward", 1) == ((), (tuple(range(9)),))
    every, each = ranges.partition("unet.forward", 9)
    assert every == boundaries
    assert each == tuple((g,) for g in range(9))
    assert ranges.partition("unet.forward", 50)[0] == boundaries


def _altered(path, change):
    """Writes the file again with a change to its tensors and its text."""
    file = SafetensorsFile(path)
    tensors, metadata = load_file(path), dict(file.metadata)
    file.close()
    change(tensors, metadata)
    save_file(tensors, path, metadata=metadata)


def _set(name, index, value):
    def change(tensors, metadata):
        tensors[f"unet.forward.{name}"][index] = value

    return change


def _text(old, new):
    def change(tensors, metadata):
        assert old in metadata[SCHEMA]
        metadata[SCHEMA] = metadata[SCHEMA].replace(old, new, 1)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("minimum", (0, 0), float("nan")), "not finite"),
        (_set("channel_sum", (0, 0), float("inf")), "not finite"),
        (_set("histogram", (0, 0, 0), -1), "negative"),
        (_set("count", (0, 0), 7), "more values than were counted"),
        (_set("minimum", (0, 0), 1e9), "above its maximum"),
        (_set("exponent", (0, 0), 500), "exponent is outside"),
        (_set("exponent", (0, 0), -3), "outside of its histogram"),
        (lambda t, m: t.pop("unet.forward.count"), "`unet.forward.count` is missing"),
        (lambda t, m: t.update(extra=torch.ones(1)), "`extra` is not expected"),
        (lambda t, m: t.update({"unet.forward.count": torch.ones(1)}), "expected int64 "),
        (lambda t, m: m.clear(), "not a file of ranges"),
        (lambda t, m: m.update(other="1"), "not a file of ranges"),
        (_text('"samples": 3', '"samples": NaN'), "found NaN"),
        (_text('"samples": 3', '"samples": 3, "samples": 4'), "appears twice"),
        (_text('"samples": 3', '"samples": 0'), "`provenance.samples`"),
        (_text('"samples": 3', '"samples": 3, "when": 1'), "`provenance.when`"),
        (_text('"branches": "both"', '"branches": "all"'), "`provenance.branches`"),
        (_text('"unet.forward": {\n      "axes"', '"../x": {\n      "axes"'), "pattern"),
        (_text('"output": 1', '"output": 99'), "names activation 99"),
        (_text("      9.0,", '      "9.0",'), "valid number"),
    ],
)  # fmt: skip
def test_a_file_that_was_altered_is_refused(saved, change, words):
    _altered(saved, change)
    with pytest.raises(InvalidInput, match=words):
        load_ranges(saved)


@pytest.mark.parametrize("kept", [0, 7, 1000])
def test_a_part_of_a_file_is_refused_with_the_way_out(saved, kept):
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(InvalidInput) as caught:
        load_ranges(saved)
    assert "when it calibrated" in caught.value.hint


def _smoothed(ranges, path):
    graph = ranges.graphs["unet.forward"]
    factors = {"layers.one": torch.tensor([0.5, 1, 2, 4]), "layers.out": torch.zeros(0)}
    smooth = replace(graph, factors=factors)
    alpha = ranges.provenance.model_copy(update={"smoothing": 0.5})
    save_ranges(Ranges({"unet.forward": smooth}, alpha), path)


def test_smoothing_factors_are_kept(ranges, saved):
    _smoothed(ranges, saved)
    loaded = load_ranges(saved)
    assert loaded.factors("unet.forward").keys() == {"layers.one"}
    assert loaded.factors("unet.forward")["layers.one"].tolist() == [0.5, 1, 2, 4]
    assert loaded.graphs["unet.forward"].factors.keys() == {"layers.one", "layers.out"}
    assert loaded.provenance.smoothing == 0.5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_set("smoothing", 0, 0.0), "not a positive number"),
        (_set("smoothing", 0, -1.0), "not a positive number"),
        (_set("smoothing", 0, float("nan")), "not a positive number"),
        (_text('"layers.one": 4', '"layers.one": 5'), r"expected float32 \[5\]"),
        (_text('"layers.one": 4', '"layers.one": -4'), "greater than or equal to 0"),
        (_text('"smoothing": 0.5', '"smoothing": 2.5'), "`provenance.smoothing`"),
        (lambda t, m: t.pop("unet.forward.smoothing"), "`unet.forward.smoothing` is missing"),
    ],
)
def test_smoothing_factors_that_were_altered_are_refused(ranges, saved, change, words):
    _smoothed(ranges, saved)
    _altered(saved, change)
    with pytest.raises(InvalidInput, match=words):
        load_ranges(saved)


def test_a_file_that_is_cut_or_missing_is_refused(saved, tmp_path):
    data = saved.read_bytes()
    for size in (0, 7, 100, len(data) - 1):
        saved.write_bytes(data[:size])
        with pytest.raises(InvalidInput):
            load_ranges(saved)
    with pytest.raises(InvalidInput, match="not found"):
        load_ranges(tmp_path / "none")


def test_a_link_is_refused(saved, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(saved)
    with pytest.raises(InvalidInput, match="symbolic link"):
        load_ranges(link)
    assert stat.S_ISREG(saved.stat().st_mode)
