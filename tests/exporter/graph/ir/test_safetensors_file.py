from __future__ import annotations

import contextlib
import json
import os
import random
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from qdx.exporter.errors import InternalError, InvalidModel, StorageError
from qdx.exporter.graph.ir import safetensors_file
from qdx.exporter.graph.ir.safetensors_file import SafetensorsFile, check_finite, open_checkpoint


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def pack(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8), **more: object):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def write(folder, data: bytes, name: str = "model.safetensors"):
    path = folder / name
    path.write_bytes(data)
    return path


DTYPES = [
    "bool", "uint8", "int8", "float8_e4m3fn", "float8_e5m2", "uint16", "int16", "float16",
    "bfloat16", "uint32", "int32", "float32", "uint64", "int64", "float64",
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (2, 3, 4)], ids=str)
def test_reads_what_the_library_wrote(tmp_path, dtype, shape):
    tensor = (torch.randn(shape) * 10).abs().to(getattr(torch, dtype))
    path = tmp_path / "model.safetensors"
    save_file({"other": torch.ones(3), "a.weight": tensor}, path, metadata={"format": "pt"})
    file = SafetensorsFile(path)
    stored = file.tensors["a.weight"]
    assert (stored.dtype, stored.shape) == (dtype, shape)
    assert stored.size_bytes == tensor.numel() * tensor.element_size()
    read = file.read("a.weight")
    mapped = file.mapped("a.weight")
    for found in (read, mapped):
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        bits = bytes(found.reshape(-1).view(torch.uint8))
        assert bits == bytes(tensor.reshape(-1).view(torch.uint8))


def test_a_mapped_tensor_is_pages_of_the_file_and_writing_to_it_leaves_the_file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1 << 20)}, path)
    before = anonymous_bytes()
    mapped = SafetensorsFile(path).mapped("a")
    assert not mapped.any()
    assert anonymous_bytes() - before < 1 << 20  # 4 MiB are mapped
    mapped += 1
    assert anonymous_bytes() - before > 3 << 20
    assert not SafetensorsFile(path).read("a").any()
    assert mapped.all()


def anonymous_bytes() -> int:
    fields = Path("/proc/self/status").read_text().split()
    return int(fields[fields.index("RssAnon:") + 1]) * 1024


def test_data_at_an_odd_place_is_read(tmp_path):
    header = {"a": entry("U8", (1,), (0, 1)), "b": entry("F32", (1,), (1, 5))}
    path = write(tmp_path, pack(header, b"\x07" + struct.pack("<f", 2.5)))
    file = SafetensorsFile(path)
    assert file.tensors["b"].offset_bytes % 4
    assert file.mapped("b").tolist() == [2.5]
    assert file._pages is None


def test_mapping_sees_that_the_file_became_shorter(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(4)}, path)
    file = SafetensorsFile(path)
    os.truncate(path, path.stat().st_size - 4)
    with pytest.raises(InvalidModel, match="became shorter"):
        file.mapped("a")


def test_a_closed_file_maps_nothing(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(4)}, path)
    file = SafetensorsFile(path)
    kept = file.mapped("a")
    file.close()
    assert not kept.any()
    with pytest.raises(InternalError):
        file.mapped("a")


def test_large_reads_are_split(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors_file, "_READ_LIMIT_BYTES", 7)
    save_file({"a": torch.arange(100)}, tmp_path / "m.safetensors")
    assert torch.equal(SafetensorsFile(tmp_path / "m.safetensors").read("a"), torch.arange(100))


def test_a_read_tensor_is_a_copy(tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "m.safetensors")
    file = SafetensorsFile(tmp_path / "m.safetensors")
    file.read("a").fill_(7)
    assert torch.equal(file.read("a"), torch.zeros(3))


DATA = bytes(8)
HUGE = 2**52
REFUSED = {
    "empty file": b"",
    "shorter than the length": b"\x02\0\0\0\0\0\0",
    "header length 0": pack(b"", length=0),
    "header length 1": pack(b"{", length=1),
    "header beyond the file": pack({"a": entry()}, DATA, length=10_000),
    "header length 2**64 - 1": pack({"a": entry()}, DATA, length=2**64 - 1),
    "header length 2**63": pack({"a": entry()}, DATA, length=2**63),
    "header over the limit": pack(b"{}" + b" " * (16 * 1024 * 1024)),
    "leading space": pack(b" {}"),
    "not JSON": pack(b"{]"),
    "not an object": pack(b"[]"),
    "not UTF-8": pack(b'{"\xff": 1}'),
    "trailing text": pack(b"{} x"),
    "trailing NUL": pack(b"{}\0"),
    "duplicate names": pack(
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
        b'"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
        b"12",
    ),
    "duplicate field": pack(
        b'{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', b"1"
    ),
    "duplicate metadata": pack(b'{"__metadata__":{},"__metadata__":{}}'),
    "metadata not a map": pack({"__metadata__": [], "a": entry()}, DATA),
    "metadata not text": pack({"__metadata__": {"n": 1}, "a": entry()}, DATA),
    "trailing data": pack({"a": entry()}, DATA + b"x"),
    "data without tensors": pack({}, b"x"),
    "missing data": pack({"a": entry()}, DATA[:-1]),
    "hole at the start": pack({"a": entry(offsets=[1, 9])}, DATA + b"x"),
    "hole between": pack({"a": entry(), "b": entry(offsets=[9, 17])}, bytes(17)),
    "overlap": pack({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)),
    "same bytes twice": pack({"a": entry(), "b": entry()}, DATA),
    "end before begin": pack({"a": entry(offsets=[8, 0])}, DATA),
    "empty tensor in a hole": pack({"a": entry(), "b": entry(shape=[0], offsets=[4, 4])}, DATA),
    "negative offset": pack({"a": entry(offsets=[-8, 0])}, DATA),
    "float offset": pack({"a": entry(offsets=[0, 8.0])}, DATA),
    "boolean offset": pack({"a": entry("U8", [1], [False, True])}, b"x"),
    "text offset": pack({"a": entry(offsets=["0", "8"])}, DATA),
    "one offset": pack({"a": entry(offsets=[8])}, DATA),
    "three offsets": pack({"a": entry(offsets=[0, 8, 8])}, DATA),
    "offsets not a list": pack({"a": entry(offsets={"0": 8})}, DATA),
    "shape too large": pack({"a": entry(shape=[3])}, DATA),
    "shape too small": pack({"a": entry(shape=[1])}, DATA),
    "shape overflow to 8 bytes": pack({"a": entry(shape=[HUGE, HUGE, HUGE, 2])}, DATA),
    "shape overflow to 0": pack({"a": entry(shape=[2**32, 2**32], offsets=[0, 0])}),
    "shape beyond 2**53": pack({"a": entry(shape=[2**64 + 2])}, DATA),
    "negative sizes": pack({"a": entry(shape=[-1, -2])}, DATA),
    "float size": pack({"a": entry(shape=[2.0])}, DATA),
    "boolean size": pack({"a": entry(shape=[2, True])}, DATA),
    "text size": pack({"a": entry(shape=["2"])}, DATA),
    "null shape": pack({"a": entry(shape=None)}, DATA),
    "shape is text": pack({"a": entry(shape="2")}, DATA),
    "rank 17": pack({"a": entry(shape=[2] + [1] * 16)}, DATA),
    "rank 100000": pack({"a": entry(shape=[2] + [1] * 100_000)}, DATA),
    "unknown dtype": pack({"a": entry("F31")}, DATA),
    "lower case dtype": pack({"a": entry("f32")}, DATA),
    "torch dtype": pack({"a": entry("float32")}, DATA),
    "half byte dtype": pack({"a": entry("F4", [16])}, DATA),
    "dtype is a number": pack({"a": entry(32)}, DATA),
    "dtype is a list": pack({"a": entry(["F32"])}, DATA),
    "entry is a list": pack({"a": ["F32", [2], [0, 8]]}, DATA),
    "entry is null": pack({"a": None}, DATA),
    "extra field": pack({"a": entry(zone="x")}, DATA),
    "missing shape": pack({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, DATA),
    "name with NUL": pack({"a\0b": entry()}, DATA),
    "name is a path up": pack({"../../x": entry()}, DATA),
    "name is absolute": pack({"/etc/passwd": entry()}, DATA),
    "name with backslash": pack({"a\\b": entry()}, DATA),
    "name with dots": pack({"a..b": entry()}, DATA),
    "name with line feed": pack({"a\n": entry()}, DATA),
    "name with escape": pack({"\x1b[2J": entry()}, DATA),
    "name with bidi mark": pack({"a\u202eb": entry()}, DATA),
    "name beyond ASCII": pack({"é": entry()}, DATA),
    "empty name": pack({"": entry()}, DATA),
    "long name": pack({"a" * 513: entry()}, DATA),
    "NaN": pack(b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,1]}}', b"1"),
    "depth": pack(b'{"a":' * 100_000),
}


@pytest.mark.parametrize("case", REFUSED)
def test_malformed_files_are_refused(tmp_path, case):
    path = write(tmp_path, REFUSED[case])
    before = open_files()
    with pytest.raises(InvalidModel) as caught:
        SafetensorsFile(path)
    assert str(path) in caught.value.message
    assert open_files() == before


def test_the_smallest_cases_are_accepted(tmp_path):
    for case in [pack({}), pack(b"{}      "), pack({"a": entry()}, DATA)]:
        SafetensorsFile(write(tmp_path, case))


def test_the_message_names_the_tensor(tmp_path):
    path = write(tmp_path, pack({"down.0.weight": entry(shape=[3])}, DATA))
    with pytest.raises(InvalidModel, match=r"`down.0.weight`: 8 bytes, expected 12 for its shape"):
        SafetensorsFile(path)


@pytest.fixture(scope="module")
def genuine(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("genuine")
    tensors = {"conv.weight": torch.ones(4, 3, 3), "conv.bias": torch.ones(4).half()}
    save_file(tensors, folder / "m.safetensors", metadata={"format": "pt"})
    return (folder / "m.safetensors").read_bytes()


def test_every_truncation_is_refused(tmp_path, genuine):
    for length in range(len(genuine)):
        with pytest.raises(InvalidModel):
            SafetensorsFile(write(tmp_path, genuine[:length]))


def test_flipped_header_bits_never_change_the_layout_silently(tmp_path, genuine):
    """A flip is refused, or it changes only a name or metadata, where one valid text became another."""
    header_end = 8 + struct.unpack("<Q", genuine[:8])[0]
    layout = sorted(
        (t.dtype, t.shape, t.offset_bytes)
        for t in SafetensorsFile(write(tmp_path, genuine)).tensors.values()
    )
    bits = [(byte, bit) for byte in range(header_end) for bit in range(8)]
    survivors = 0
    for byte, bit in random.Random(0).sample(bits, 500):
        data = bytearray(genuine)
        data[byte] ^= 1 << bit
        try:
            tensors = SafetensorsFile(write(tmp_path, bytes(data))).tensors
        except InvalidModel:
            continue
        survivors += 1
        assert len(tensors) in {2, 3}
        found = sorted((t.dtype, t.shape, t.offset_bytes) for t in tensors.values())
        # F16 to I16 and the like share an element size: only a digest can catch those.
        assert [row[1:] for row in found] == [row[1:] for row in layout]
    assert survivors < 150


@given(st.binary(max_size=200))
def test_any_bytes_as_header(tmp_path_factory, raw):
    path = write(tmp_path_factory.getbasetemp(), pack(raw), "fuzz.safetensors")
    with contextlib.suppress(InvalidModel):
        SafetensorsFile(path).close()


@pytest.mark.parametrize("kind", ["missing", "symlink", "hardlink", "fifo", "folder"])
def test_only_plain_files_are_opened(tmp_path, genuine, kind):
    real, path = write(tmp_path, genuine, "real"), tmp_path / "model.safetensors"
    match kind:
        case "symlink":
            path.symlink_to(real)
        case "hardlink":
            path.hardlink_to(real)
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
    with pytest.raises(InvalidModel):
        SafetensorsFile(path)


def test_a_file_replaced_after_the_check_is_not_read(tmp_path, genuine):
    path = write(tmp_path, genuine)
    file = SafetensorsFile(path)
    path.unlink()
    path.write_bytes(b"something else")
    assert torch.equal(file.read("conv.weight"), torch.ones(4, 3, 3))


def test_a_file_cut_after_the_check_is_refused(tmp_path, genuine):
    path = write(tmp_path, genuine)
    file = SafetensorsFile(path)
    os.truncate(path, len(genuine) - 150)
    with pytest.raises(InvalidModel, match="ends early"):
        file.read("conv.weight")


def test_a_faulty_disk_is_a_storage_error(tmp_path, genuine, monkeypatch):
    file = SafetensorsFile(write(tmp_path, genuine))

    def fail(*_args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        file.read("conv.weight")


def test_a_closed_file_is_not_read(tmp_path, genuine):
    file = SafetensorsFile(write(tmp_path, genuine))
    file.close()
    file.close()
    with pytest.raises(InternalError):
        file.read("conv.weight")


def test_unknown_names_are_key_errors(tmp_path, genuine):
    with pytest.raises(KeyError):
        SafetensorsFile(write(tmp_path, genuine)).read("nothing")


# Finite weights


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "float8_e5m2"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_named(dtype, value):
    tensor = torch.tensor([1.0, value, 2.0, value]).to(getattr(torch, dtype))
    with pytest.raises(InvalidModel, match=r"`x`: tensor `a.b`: 2 of 4 values"):
        check_finite(tensor, "a.b", "x")


@pytest.mark.parametrize("dtype", DTYPES)
def test_finite_weights_pass(dtype):
    check_finite(torch.tensor([0, 1, 1]).to(getattr(torch, dtype)), "a", "x")
    check_finite(torch.zeros(0).to(getattr(torch, dtype)), "a", "x")


def test_denormal_weights_pass():
    check_finite(torch.tensor([1e-45, -1e-40]), "a", "x")


# Checkpoints


def save_sharded(folder, stem="model", weight_map=None, index=None):
    save_file({"a": torch.ones(2)}, folder / f"{stem}-00001-of-00002.safetensors")
    save_file({"b": torch.zeros(3)}, folder / f"{stem}-00002-of-00002.safetensors")
    if weight_map is None:
        weight_map = {
            "a": f"{stem}-00001-of-00002.safetensors",
            "b": f"{stem}-00002-of-00002.safetensors",
        }
    text = json.dumps({"metadata": {"total_size": 20}, "weight_map": weight_map})
    (folder / (index or f"{stem}.safetensors.index.json")).write_text(text)


def test_one_file(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "diffusion_pytorch_model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    assert dict(checkpoint) == {"a": checkpoint["a"]}
    assert checkpoint.files == [tmp_path / "diffusion_pytorch_model.safetensors"]
    assert torch.equal(checkpoint.read("a"), torch.ones(2))


def test_shards(tmp_path):
    save_sharded(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert sorted(checkpoint) == ["a", "b"]
    assert len(checkpoint.files) == 3
    assert torch.equal(checkpoint.read("b"), torch.zeros(3))
    assert checkpoint.file_of("b").name == "model-00002-of-00002.safetensors"


@pytest.mark.parametrize("index", ["model.safetensors.index.fp16.json"])
def test_shards_of_a_variant(tmp_path, index):
    save_sharded(tmp_path, index=index)
    assert len(open_checkpoint(tmp_path)) == 2


def test_plain_name_before_variant(tmp_path):
    save_file({"a": torch.ones(2).half()}, tmp_path / "model.fp16.safetensors")
    assert open_checkpoint(tmp_path)["a"].dtype == "float16"
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    assert open_checkpoint(tmp_path)["a"].dtype == "float32"


def test_both_forms_are_ambiguous(tmp_path):
    save_sharded(tmp_path)
    save_file({"a": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(InvalidModel, match="expected one of them"):
        open_checkpoint(tmp_path)


ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.mark.parametrize(
    ("weight_map", "reason"),
    [
        ({"a": TWO, "b": ONE}, "is not in"),
        ({"a": ONE}, None),
        ({"a": ONE, "b": TWO, "c": TWO}, "`c` is not in"),
        ({"a": ONE, "b": "../model.safetensors"}, "expected a `.safetensors` file beside"),
        ({"a": ONE, "b": "/etc/passwd"}, "beside the index"),
        ({"a": ONE, "b": "x/y.safetensors"}, "beside the index"),
        ({"a": ONE, "b": "b\x01.safetensors"}, "not an allowed relative path"),
        ({"a": ONE, "b": "..safetensors"}, "not an allowed relative path"),
        ({"a": ONE, "b": "b.bin"}, "beside the index"),
        ({"a": ONE, "b": "missing.safetensors"}, "not found"),
        ({"a": ONE, "b": 2}, "beside the index"),
        ({"a": ONE, "b": None}, "beside the index"),
        ({}, "`weight_map` is missing or empty"),
        ([], "`weight_map` is missing or empty"),
    ],
)
def test_an_index_that_lies(tmp_path, weight_map, reason):
    save_sharded(tmp_path, weight_map=weight_map)
    if reason is None:  # a shard that is not listed is not read at all
        assert list(open_checkpoint(tmp_path)) == ["a"]
        return
    with pytest.raises(InvalidModel, match=reason):
        open_checkpoint(tmp_path)


def test_a_tensor_that_the_index_leaves_out(tmp_path):
    save_sharded(tmp_path, weight_map={"a": ONE})
    save_file({"a": torch.ones(2), "c": torch.ones(2)}, tmp_path / ONE)
    with pytest.raises(InvalidModel, match="`c` is not listed"):
        open_checkpoint(tmp_path)


def test_a_tensor_in_two_shards(tmp_path):
    save_sharded(tmp_path)
    save_file({"a": torch.ones(2), "b": torch.ones(2)}, tmp_path / ONE)
    with pytest.raises(InvalidModel, match="`b` is also in"):
        open_checkpoint(tmp_path)


def test_linked_shards_are_refused(tmp_path):
    save_sharded(tmp_path)
    (tmp_path / TWO).rename(tmp_path / "elsewhere")
    (tmp_path / TWO).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidModel, match="symbolic link"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt", ".pkl"])
def test_pickles_are_refused_with_a_way_out(tmp_path, suffix):
    (tmp_path / f"pytorch_model{suffix}").write_bytes(b"\x80\x04.")
    with pytest.raises(InvalidModel) as caught:
        open_checkpoint(tmp_path)
    assert "safe_serialization=True" in caught.value.hint


def test_no_weights_at_all(tmp_path):
    with pytest.raises(InvalidModel, match="no weights, expected `diffusion_pytorch_model"):
        open_checkpoint(tmp_path)
    with pytest.raises(InvalidModel, match="not a folder"):
        open_checkpoint(tmp_path / "nothing")
