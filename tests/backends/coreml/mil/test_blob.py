"""The weight file: what coremltools writes is read, and what is wrong is refused."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from coremltools.libmilstoragepython import _BlobStorageWriter

from qdx.backends.coreml.mil.blob import WeightFile
from qdx.backends.coreml.mil.dtypes import BY_NAME
from qdx.backends.coreml.mil.where import Where
from qdx.exporter.errors import InvalidBundle

PLACE = Where("model.mlmodel").at("const", "w")
WRITERS = {
    "float32": ("write_float_data", np.float32),
    "float16": ("write_fp16_data", np.uint16),
    "int8": ("write_int8_data", np.int8),
    "uint8": ("write_uint8_data", np.uint8),
    "int16": ("write_int16_data", np.int16),
    "uint16": ("write_uint16_data", np.uint16),
    "int32": ("write_int32_data", np.int32),
    "uint32": ("write_uint32_data", np.uint32),
}
PACKED = {"int4": (-8, 8), "uint1": (0, 2), "uint2": (0, 4), "uint3": (0, 8), "uint4": (0, 16), "uint6": (0, 64)}  # fmt: skip


@pytest.fixture
def file(tmp_path):
    """Two entries: floats, and 21 elements of three bits."""
    from coremltools.converters.mil.mil import types

    path = tmp_path / "weight.bin"
    writer = _BlobStorageWriter(str(path))
    floats = writer.write_float_data(np.arange(10, dtype=np.float32))
    codes = np.arange(21) % 8
    palette = writer.write_uint3_data(codes.astype(types.nptype_from_builtin(types.uint3)))
    del writer
    return path, floats, palette


@pytest.mark.parametrize("name", WRITERS)
def test_whole_elements_come_back(tmp_path, name):
    method, dtype = WRITERS[name]
    values = np.random.default_rng(0).integers(0, 100, 37).astype(dtype)
    writer = _BlobStorageWriter(str(tmp_path / "weight.bin"))
    place = getattr(writer, method)(values)
    del writer

    found = WeightFile(tmp_path / "weight.bin").find(place, BY_NAME[name], 37, PLACE).read()

    assert np.array_equal(found.view(dtype), values)


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("count", [1, 8, 21])
def test_parts_of_bytes_come_back(tmp_path, name, count):
    from coremltools.converters.mil.mil import types

    values = np.random.default_rng(0).integers(*PACKED[name], count)
    marked = values.astype(types.nptype_from_builtin(getattr(types, name)))
    writer = _BlobStorageWriter(str(tmp_path / "weight.bin"))
    place = getattr(writer, f"write_{name}_data")(marked)
    del writer

    found = WeightFile(tmp_path / "weight.bin").find(place, BY_NAME[name], count, PLACE).read()

    assert found.tolist() == values.tolist()


@pytest.mark.parametrize("place", [0, 1, 63, 65, 128, 1 << 20, 1 << 63])
def test_an_entry_that_is_not_there_is_refused(file, place):
    path, floats, _ = file
    place = floats + 64 if place == 128 else place  # data instead of its description

    with pytest.raises(InvalidBundle, match="no entry starts there"):
        WeightFile(path).find(place, BY_NAME["float32"], 10, PLACE)


@pytest.mark.parametrize(
    ("name", "count"), [("float16", 20), ("int32", 10), ("float32", 9), ("float32", 11)]
)
def test_an_entry_of_another_type_or_size_is_refused(file, name, count):
    path, floats, _ = file

    with pytest.raises(InvalidBundle, match=r"const `w`: at 64 of `weight\.bin`: "):
        WeightFile(path).find(floats, BY_NAME[name], count, PLACE)


@pytest.mark.parametrize("count", [20, 22])
def test_elements_of_bits_are_counted(file, count):
    path, _, palette = file

    with pytest.raises(InvalidBundle, match=f"expected {(3 * count + 7) // 8} for {count}"):
        WeightFile(path).find(palette, BY_NAME["uint3"], count, PLACE)


@pytest.mark.parametrize("offset", [0, 65, 1 << 40, (1 << 64) - 64])
def test_data_outside_of_the_file_is_refused(file, offset):
    path, floats, _ = file
    raw = bytearray(path.read_bytes())
    struct.pack_into("<Q", raw, floats + 16, offset)
    path.write_bytes(raw)

    with pytest.raises(InvalidBundle, match="bytes of data from"):
        WeightFile(path).find(floats, BY_NAME["float32"], 10, PLACE)


@pytest.mark.parametrize("size", [0, 7, 63])
def test_a_file_without_a_header_is_refused(tmp_path, size):
    path = tmp_path / "weight.bin"
    path.write_bytes(bytes(size))

    with pytest.raises(InvalidBundle, match="expected a header"):
        WeightFile(path)


def test_another_version_is_refused(file):
    path, _, _ = file
    raw = bytearray(path.read_bytes())
    struct.pack_into("<I", raw, 4, 3)
    path.write_bytes(raw)

    with pytest.raises(InvalidBundle, match="format version 3, expected 2"):
        WeightFile(path)


def test_a_file_that_became_shorter_is_noticed(file):
    path, floats, _ = file
    blob = WeightFile(path).find(floats, BY_NAME["float32"], 10, PLACE)
    with path.open("r+b") as opened:
        opened.truncate(130)

    with pytest.raises(InvalidBundle, match="became shorter"):
        blob.read()
