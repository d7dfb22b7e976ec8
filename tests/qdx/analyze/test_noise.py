"""The measures of noise, each against what it is by definition."""

from __future__ import annotations

import math

import pytest
import torch

from qdx.analyze.analysis import MEASURES
from qdx.analyze.noise import errors_of, folded, measured, relative_noise


def draw(seed, *shape):
    # Few bits, so that differences are exact in float32 as well.
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return (drawn * 256).round() / 256


def norm2(x):
    return float(x.double().norm() ** 2)


def rows(calls, *guidance):
    return [dict(zip(MEASURES, row, strict=True)) for row in measured(calls, guidance)]


def test_it_is_squared_error_over_squared_reference():
    r, x = draw(0, 2, 4, 3, 3), draw(1, 2, 4, 3, 3)
    assert relative_noise(r, x) == pytest.approx(norm2(x - r) / norm2(r), rel=1e-12)
    assert relative_noise(r, r) == 0


@pytest.mark.parametrize(
    ("reference", "found"),
    [(torch.zeros(3), torch.ones(3)), (torch.ones(3), torch.tensor([1, math.nan, 1])),
     (torch.ones(3), torch.tensor([1, math.inf, 1])), (torch.tensor([math.inf]), torch.ones(1))],
)  # fmt: skip
def test_what_is_no_number_is_not_one(reference, found):
    assert math.isnan(relative_noise(reference, found))


def test_both_branches_in_one_call_are_its_halves():
    r, x = draw(0, 4, 3), draw(1, 4, 3)
    (row,) = rows([({"sample": r}, {"sample": x})], 2, 1)

    assert row["prediction"] == pytest.approx(norm2(x - r) / norm2(r))
    assert row["unconditional"] == pytest.approx(norm2(x[:2] - r[:2]) / norm2(r[:2]))
    assert row["conditional"] == pytest.approx(norm2(x[2:] - r[2:]) / norm2(r[2:]))
    prompt_r, prompt_x = r[2:] - r[:2], x[2:] - x[:2]
    assert row["guidance"] == pytest.approx(norm2(prompt_x - prompt_r) / norm2(prompt_r))


def test_an_error_alike_in_both_branches_changes_no_content():
    r = draw(0, 4, 3)
    x = r + draw(1, 2, 3).repeat(2, 1)
    (row,) = rows([({"sample": r}, {"sample": x})], 2, 1)

    assert row["guidance"] < 1e-12
    assert row["prediction"] > 0.1


def test_two_calls_of_a_step_are_its_branches():
    r, x = draw(0, 2, 2, 3), draw(1, 2, 2, 3)
    first, last = rows([({"s": r[0]}, {"s": x[0]}), ({"s": r[1]}, {"s": x[1]})], 1, 2)

    assert (
        first["conditional"]
        == first["prediction"]
        == pytest.approx(norm2(x[0] - r[0]) / norm2(r[0]))
    )
    assert (
        last["unconditional"]
        == last["prediction"]
        == pytest.approx(norm2(x[1] - r[1]) / norm2(r[1]))
    )
    assert math.isnan(first["guidance"])
    prompt_r, prompt_x = r[0] - r[1], x[0] - x[1]
    assert last["guidance"] == pytest.approx(norm2(prompt_x - prompt_r) / norm2(prompt_r))


def test_a_step_of_two_calls_with_other_latents_has_the_branches_in_each():
    r, x = draw(0, 2, 4, 3), draw(1, 2, 4, 3)
    found = rows([({"s": r[0]}, {"s": x[0]}), ({"s": r[1]}, {"s": x[1]})], 2, 1)

    for number, row in enumerate(found):
        assert row["conditional"] == pytest.approx(
            norm2((x - r)[number, 2:]) / norm2(r[number, 2:])
        )


@pytest.mark.parametrize("guidance", [(1, 1), (3, 1), (4, 1), (1, 3)])
def test_without_two_branches_there_is_the_prediction_alone(guidance):
    calls = [({"s": draw(0, 12, 3)}, {"s": draw(1, 12, 3)})] * 2
    for row in rows(calls, *guidance):
        assert not math.isnan(row.pop("prediction"))
        assert all(map(math.isnan, row.values()))


def test_several_outputs_count_alike():
    r = {"a": draw(0, 2, 3), "b": 100 * draw(1, 5)}
    x = {"a": draw(2, 2, 3), "b": 100 * draw(3, 5)}
    (row,) = rows([(r, x)], 1, 1)

    each = [norm2(x[n] - r[n]) / norm2(r[n]) for n in r]
    assert row["prediction"] == pytest.approx(sum(each) / 2)


def test_squared_errors_are_the_noise():
    r, x = draw(0, 4, 3), draw(1, 4, 3)
    calls = [({"sample": r}, {"sample": x})]
    (row,) = rows(calls, 2, 1)
    errors = errors_of(calls, (2, 1), 1000)

    assert errors.shape == (18,)
    assert norm2(errors[:12]) == pytest.approx(row["prediction"])
    assert norm2(errors[12:]) == pytest.approx(row["guidance"])


def test_errors_of_two_calls_stand_side_by_side_and_their_guidance_behind():
    r, x = draw(0, 2, 2, 3), draw(1, 2, 2, 3)
    calls = [({"s": one}, {"s": other}) for one, other in zip(r, x, strict=True)]
    first, last = rows(calls, 1, 2)
    errors = errors_of(calls, (1, 2), 1000)

    assert norm2(errors[:6]) == pytest.approx(first["prediction"])
    assert norm2(errors[6:12]) == pytest.approx(last["prediction"])
    assert norm2(errors[12:]) == pytest.approx(last["guidance"])


def test_errors_of_several_outputs_add_up_to_their_noise():
    r = {"a": draw(0, 2, 3), "b": 100 * draw(1, 5)}
    x = {"a": draw(2, 2, 3), "b": 100 * draw(3, 5)}
    (row,) = rows([(r, x)], 1, 1)
    assert norm2(errors_of([(r, x)], (1, 1), 1000)) == pytest.approx(row["prediction"])


def test_folding_keeps_norms_and_inner_products_about():
    one, other = draw(0, 50_000), draw(1, 50_000)
    other = other + one  # an angle of 45 degrees
    small = [folded(each, 2048).double() for each in (one, other)]

    assert [each.numel() for each in small] == [2048, 2048]
    assert [float(each.norm()) for each in small] == pytest.approx(
        [float(one.norm()), float(other.norm())]
    )
    cosine = float(small[0] @ small[1] / small[0].norm() / small[1].norm())
    assert cosine == pytest.approx(math.sqrt(0.5), abs=4 / math.sqrt(2048))
    assert torch.equal(small[0], folded(one, 2048).double())  # the same every time
    assert torch.equal(folded(one, 50_000), one)
    assert not folded(torch.zeros(100), 10).any()
