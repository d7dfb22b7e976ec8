"""Weights that are stored compressed: each form against its definition, written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import types

from tests.support.coreml_packages import integers, run

BITS = {"int4": 4, "uint4": 4, "int8": 8, "uint8": 8}


def of_type(values, name):
    """Integers as coremltools marks them."""
    return np.asarray(values).astype(types.nptype_from_builtin(getattr(types, name)))


def codes(name, *shape, seed=0):
    low = -(1 << BITS[name] - 1) if name.startswith("int") else 0
    return integers(low, low + (1 << BITS[name]), *shape, seed=seed)


def floats(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).uniform(0.01, 1, shape).astype(dtype)


def decompressed(make, shape, *, target="iOS18", dtype=torch.float32):
    """What an operation that reads the weight is given."""
    (found,) = run(
        lambda mb, x: mb.add(x=x, y=make(mb)), {"x": torch.zeros(shape, dtype=dtype)}, target=target
    )
    return found.numpy()


def repeated(values, shape):
    """Blocks of equal size along each axis."""
    for axis, size in enumerate(shape):
        values = np.repeat(values, size // values.shape[axis], axis)
    return values


class TestAffine:
    @pytest.mark.parametrize("target", ["iOS16", "iOS17"])
    @pytest.mark.parametrize("name", ["int8", "uint8"])
    @pytest.mark.parametrize("axis", [0, 1, -1])
    def test_a_scale_for_each_channel(self, name, axis, target):
        data = codes(name, 4, 6, 5)
        count = data.shape[axis]
        scale, zero = floats(count, seed=1), codes(name, count, seed=2)

        found = decompressed(
            lambda mb: mb.constexpr_affine_dequantize(
                quantized_data=of_type(data, name),
                zero_point=of_type(zero, name),
                scale=scale,
                axis=axis,
            ),
            data.shape,
            target=target,
        )

        along = [1, 1, 1]
        along[axis] = count
        expected = (data - zero.reshape(along)).astype(np.float32) * scale.reshape(along)
        assert np.array_equal(found, expected)

    @pytest.mark.parametrize("dtype", [np.float16, np.float32])
    def test_one_scale_for_all(self, dtype):
        data, scale = codes("int8", 6, 5, 3, 3), dtype(0.0173)

        found = decompressed(
            lambda mb: mb.constexpr_affine_dequantize(
                quantized_data=of_type(data, "int8"), zero_point=np.int8(3), scale=scale, axis=0
            ),
            data.shape,
            target="iOS16",
            dtype=torch.from_numpy(np.array(scale)).dtype,
        )

        expected = ((data - 3).astype(np.float32) * np.float32(scale)).astype(dtype)
        assert np.array_equal(found, expected)


class TestBlockwise:
    @pytest.mark.parametrize("name", ["int4", "uint4", "int8", "uint8"])
    @pytest.mark.parametrize("scales", [(1, 1), (6, 1), (6, 2), (3, 4), (6, 8)])
    @pytest.mark.parametrize("offset", ["none", "integers", "floats"])
    def test_blocks_along_every_axis(self, name, scales, offset):
        data, scale = codes(name, 6, 8), floats(*scales, seed=1)
        shift = {
            "none": None,
            "integers": codes(name, *scales, seed=2),
            "floats": floats(*scales, seed=3),
        }[offset]
        given = {"offset": of_type(shift, name) if offset == "integers" else shift}

        found = decompressed(
            lambda mb: mb.constexpr_blockwise_shift_scale(
                data=of_type(data, name), scale=scale, **({} if offset == "none" else given)
            ),
            data.shape,
        )

        shifted = data.astype(np.float32)
        if shift is not None:
            shifted = shifted - repeated(np.asarray(shift, np.float32), data.shape)
        assert np.array_equal(found, shifted * repeated(scale, data.shape))

    def test_kernels_of_convolutions(self):
        data, scale = codes("int4", 4, 8, 3, 3), floats(4, 2, 1, 1, seed=1, dtype=np.float16)

        found = decompressed(
            lambda mb: mb.constexpr_blockwise_shift_scale(data=of_type(data, "int4"), scale=scale),
            data.shape,
            dtype=torch.float16,
        )

        expected = data.astype(np.float32) * repeated(scale, data.shape).astype(np.float32)
        assert np.array_equal(found, expected.astype(np.float16))

    @pytest.mark.parametrize("count", [1, 3, 7, 8, 9, 15])
    def test_an_odd_number_of_half_bytes(self, count):
        data = codes("int4", count)

        found = decompressed(
            lambda mb: mb.constexpr_blockwise_shift_scale(
                data=of_type(data, "int4"), scale=np.float32([2.0])
            ),
            data.shape,
        )

        assert np.array_equal(found, 2.0 * data)


class TestPalettes:
    @pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
    @pytest.mark.parametrize("shape", [(5, 7), (4, 3, 3, 3), (13,)])
    def test_packed_indices_of_ios_16(self, bits, shape):
        indices, lut = integers(0, 1 << bits, *shape), floats(1 << bits, seed=1)

        found = decompressed(
            lambda mb: mb.constexpr_lut_to_dense(
                indices=packed(indices, bits), lut=lut, shape=np.uint32(shape)
            ),
            shape,
            target="iOS16",
        )

        assert np.array_equal(found, lut[indices])

    @pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
    @pytest.mark.parametrize("groups", [(1, 1), (4, 1), (1, 3), (2, 3), (8, 1)])
    def test_a_table_for_each_group(self, bits, groups):
        indices = integers(0, 1 << bits, 8, 6)
        lut = floats(*groups, 1 << bits, 1, seed=1)

        found = decompressed(
            lambda mb: mb.constexpr_lut_to_dense(indices=of_type(indices, f"uint{bits}"), lut=lut),
            indices.shape,
        )

        expected = np.empty(indices.shape, np.float32)
        for place, index in np.ndenumerate(indices):
            group = tuple(p * g // s for p, g, s in zip(place, groups, indices.shape, strict=True))
            expected[place] = lut[(*group, index, 0)]
        assert np.array_equal(found, expected)

    @pytest.mark.parametrize("axis", [0, 1])
    @pytest.mark.parametrize("groups", [(1, 1, 1), (2, 1, 1)])
    def test_entries_of_several_elements(self, axis, groups):
        indices = integers(0, 4, 4, 3, 2)
        lut = floats(*groups, 4, 3, seed=1)
        shape = tuple(3 * s if i == axis else s for i, s in enumerate(indices.shape))

        found = decompressed(
            lambda mb: mb.constexpr_lut_to_dense(
                indices=of_type(indices, "uint2"), lut=lut, vector_axis=np.int32(axis)
            ),
            shape,
        )

        for place, index in np.ndenumerate(indices):
            group = tuple(p * g // s for p, g, s in zip(place, groups, indices.shape, strict=True))
            entry = [slice(3 * p, 3 * p + 3) if i == axis else p for i, p in enumerate(place)]
            assert np.array_equal(found[tuple(entry)], lut[(*group, index)])

    def test_the_example_of_the_definition(self):
        indices = np.array([2, 3, 3, 0, 1, 0, 3, 0, 2, 1, 0, 3]).reshape(6, 2)
        lut = np.float32([1, 5, 9, 13, 2, 10, 18, 26]).reshape(2, 1, 4, 1)

        found = decompressed(
            lambda mb: mb.constexpr_lut_to_dense(indices=of_type(indices, "uint2"), lut=lut), (6, 2)
        )

        assert found.tolist() == [[9, 13], [13, 1], [5, 1], [26, 2], [18, 10], [2, 26]]


class TestSparse:
    @pytest.mark.parametrize("shape", [(5, 7), (4, 3, 3), (16,)])
    def test_the_mask_of_ios_16(self, shape):
        mask = integers(0, 2, *shape)
        values = floats(int(mask.sum()), seed=1)

        found = decompressed(
            lambda mb: mb.constexpr_sparse_to_dense(
                nonzero_data=values, mask=packed(mask, 1), shape=np.uint32(shape)
            ),
            shape,
            target="iOS16",
        )

        assert np.array_equal(found, scattered(values, mask))

    @pytest.mark.parametrize("dtype", [np.float16, np.float32])
    def test_the_mask_of_ios_18(self, dtype):
        mask = integers(0, 2, 6, 9)
        values = floats(int(mask.sum()), seed=1, dtype=dtype)

        found = decompressed(
            lambda mb: mb.constexpr_sparse_to_dense(
                nonzero_data=values, mask=of_type(mask, "uint1")
            ),
            mask.shape,
            dtype=torch.from_numpy(values).dtype,
        )

        assert np.array_equal(found, scattered(values, mask))


class TestJoint:
    """Forms within forms."""

    def test_a_palette_of_integers_with_a_scale(self):
        indices, lut = integers(0, 16, 8, 6), codes("int8", 2, 1, 16, 1)
        scale = floats(2, 1, seed=1)

        found = decompressed(
            lambda mb: mb.constexpr_blockwise_shift_scale(
                data=mb.constexpr_lut_to_dense(
                    indices=of_type(indices, "uint4"), lut=of_type(lut, "int8")
                ),
                scale=scale,
            ),
            indices.shape,
        )

        half = np.arange(8) // 4
        dense = lut[half[:, None], 0, indices, 0].astype(np.float32)
        assert np.array_equal(found, dense * repeated(scale, indices.shape))

    def test_a_palette_whose_table_is_quantized(self):
        indices, table = integers(0, 8, 5, 4), codes("int8", 1, 1, 8, 1)
        scale = floats(1, 1, 1, 1, seed=1)

        found = decompressed(
            lambda mb: mb.constexpr_lut_to_dense(
                indices=of_type(indices, "uint3"),
                lut=mb.constexpr_blockwise_shift_scale(data=of_type(table, "int8"), scale=scale),
            ),
            indices.shape,
        )

        dense = table.astype(np.float32) * scale
        assert np.array_equal(found, dense.reshape(-1)[indices])

    @pytest.mark.parametrize("size", [1, 2])
    def test_a_sparse_palette(self, size):
        mask = integers(0, 2, 4, 6)
        indices = integers(0, 4, int(mask.sum()), seed=1)
        lut = floats(1, 1, 4, size, seed=2)
        axis = {} if size == 1 else {"vector_axis": np.int32(0)}

        def make(mb):
            places, values = mb.constexpr_lut_to_sparse(
                indices_mask=of_type(mask, "uint1"),
                indices_nonzero_data=of_type(indices, "uint2"),
                lut=lut,
                **axis,
            )
            return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=places)

        found = decompressed(make, (4 * size, 6))

        dense = scattered(indices, mask).astype(int)
        expected = lut[0, 0, dense] * mask[..., None]
        assert np.array_equal(found, expected.transpose(0, 2, 1).reshape(4 * size, 6))

    def test_sparse_codes(self):
        """The example of the operation's definition."""
        mask = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1], [1, 1, 0, 0]])
        data = np.array([10, 11, 3, 4, 5, 6, 7, 8, 9])
        scale, offset = np.float32([[0.1, 0.2, 0.3, 0.4]]), np.array([[1, 2, 3, 4]])

        def make(mb):
            places, values = mb.constexpr_sparse_blockwise_shift_scale(
                data_mask=of_type(mask, "uint1"),
                nonzero_data=of_type(data, "int8"),
                scale=scale,
                offset=of_type(offset, "int8"),
            )
            return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=places)

        found = decompressed(make, (4, 4))

        values = [0.9, 1.8, 0.2, 0.4, 0.6, 0.9, 1.2, 0.7, 1.4]
        np.testing.assert_allclose(found, scattered(values, mask), rtol=1e-6)

    def test_a_cast_of_a_palette(self):
        indices, lut = integers(0, 2, 5, 4), floats(1, 1, 2, 1, dtype=np.float16)

        found = decompressed(
            lambda mb: mb.constexpr_cast(source_val=lut.reshape(-1)[indices], output_dtype="fp32"),
            indices.shape,
        )

        assert np.array_equal(found, lut.reshape(-1)[indices].astype(np.float32))


def packed(values, bits):
    """Elements of some bits one behind the other, lowest bits first."""
    flat = values.reshape(-1)
    spread = (flat[:, None] >> np.arange(bits)) & 1
    return np.packbits(spread.reshape(-1).astype(np.uint8), bitorder="little")


def scattered(values, mask):
    dense = np.zeros(mask.shape, np.asarray(values).dtype)
    dense[mask != 0] = values
    return dense
