"""Elements taken from, and put to, positions that are computed."""

from __future__ import annotations

import pytest
import torch

from qdx.exporter.errors import InvalidBundle
from tests.support.coreml_packages import random, run

X = random(4, 5, 6)


def positions(*values, dtype=torch.int32):
    return torch.tensor(values, dtype=dtype)


@pytest.mark.parametrize("target", ["iOS16", "iOS17"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather_takes_slices(axis, target):
    index = positions([0, 2, 1], [3, 3, 0])

    (found,) = run(
        lambda mb, x, i: mb.gather(x=x, indices=i, axis=axis), {"x": X, "i": index}, target=target
    )

    expected = X.index_select(axis, index.reshape(-1).long()).unflatten(axis, (2, 3))
    assert torch.equal(found, expected)


def test_an_embedding_is_a_gather_of_rows():
    table, tokens = random(10, 4), positions([1, 9, 0], [3, 3, 2])

    (found,) = run(lambda mb, i: mb.gather(x=table.numpy(), indices=i, axis=0), {"i": tokens})

    assert torch.equal(found, torch.nn.functional.embedding(tokens, table))


def test_before_ios_17_negative_indices_count_from_the_end():
    (found,) = run(
        lambda mb, x, i: mb.gather(x=x, indices=i, axis=0),
        {"x": X, "i": positions(-1, 0)},
        target="iOS16",
    )

    assert torch.equal(found, X[[3, 0]])


def test_indices_outside_are_an_error():
    with pytest.raises(InvalidBundle, match="gather `gather_0`: cannot be computed"):
        run(lambda mb, x, i: mb.gather(x=x, indices=i, axis=0), {"x": X, "i": positions(0, 4)})


def test_gather_with_batches():
    index = positions([0, 2], [1, 1], [4, 0], [3, 2])

    (found,) = run(
        lambda mb, x, i: mb.gather(x=x, indices=i, axis=1, batch_dims=1), {"x": X, "i": index}
    )

    expected = torch.stack([x[i.long()] for x, i in zip(X, index, strict=True)])
    assert torch.equal(found, expected)


def test_gather_along_an_axis():
    index = positions([[0, 1, 2, 3, 4, 0]], [[4, 3, 2, 1, 0, 0]], [[0] * 6], [[1] * 6])

    (found,) = run(
        lambda mb, x, i: mb.gather_along_axis(x=x, indices=i, axis=1), {"x": X, "i": index}
    )

    assert torch.equal(found, X.gather(1, index.long()))


def test_gather_by_coordinates():
    index = positions([0, 4], [3, 1])

    whole, batched = run(
        lambda mb, x, i: (
            mb.gather_nd(x=x, indices=i),
            mb.gather_nd(x=x, indices=mb.reshape(x=i, shape=[4, 1]), batch_dims=1),
        ),
        {"x": X, "i": index},
    )

    assert torch.equal(whole, torch.stack([X[0, 4], X[3, 1]]))
    assert torch.equal(batched, torch.stack([X[0, 0], X[1, 4], X[2, 3], X[3, 1]]))


@pytest.mark.parametrize("mode", ["update", "add", "sub"])
def test_scatter(mode):
    index, updates = positions(3, 0), random(4, 2, 6, seed=1)

    (found,) = run(
        lambda mb, x, i, u: mb.scatter(data=x, indices=i, updates=u, axis=1, mode=mode),
        {"x": X, "i": index, "u": updates},
    )

    expected = X.clone()
    before = {"update": 0.0, "add": X[:, [3, 0]], "sub": X[:, [3, 0]]}[mode]
    expected[:, [3, 0]] = before + (-updates if mode == "sub" else updates)
    torch.testing.assert_close(found, expected)


def test_updates_of_one_place_add_up():
    index, updates = positions([1, 2], [1, 2]), random(2, 6, seed=1)

    (found,) = run(
        lambda mb, x, i, u: mb.scatter_nd(data=x, indices=i, updates=u, mode="add"),
        {"x": X, "i": index, "u": updates},
    )

    expected = X.clone()
    expected[1, 2] += updates.sum(0)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("mode", ["update", "add", "sub"])
def test_scatter_along_an_axis(mode):
    index, updates = positions(*[[[0] * 6, [3] * 6]] * 4), random(4, 2, 6, seed=1)

    (found,) = run(
        lambda mb, x, i, u: mb.scatter_along_axis(data=x, indices=i, updates=u, axis=1, mode=mode),
        {"x": X, "i": index, "u": updates},
    )

    expected = X.clone()
    before = 0.0 if mode == "update" else X[:, [0, 3]]
    expected[:, [0, 3]] = before + (-updates if mode == "sub" else updates)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("ascending", [False, True])
def test_order(ascending):
    x = random(3, 7)

    order, values, places = run(
        lambda mb, x: (
            mb.argsort(x=x, axis=1, ascending=ascending),
            *mb.topk(x=x, k=3, axis=1, ascending=ascending),
        ),
        {"x": x},
    )

    expected = x.sort(1, descending=not ascending)
    assert torch.equal(order.long(), expected.indices)
    assert torch.equal(values, expected.values[:, :3])
    assert torch.equal(places.long(), expected.indices[:, :3])


def test_places_of_what_is_not_zero():
    x = torch.tensor([[0.0, 2.0], [3.0, 0.0]])

    (found,) = run(lambda mb, x: mb.non_zero(x=x), {"x": x})

    assert found.tolist() == [[0, 1], [1, 0]]
