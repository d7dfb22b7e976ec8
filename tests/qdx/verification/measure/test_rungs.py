from __future__ import annotations

import math

import pytest
import torch

from qdx.runtime.reference import RecordedCall, RecordedMethod
from qdx.verification.measure.components import compare_calls
from qdx.verification.measure.rungs import (
    ARTIFACT,
    QUANTIZED,
    UNOPTIMIZED,
    Rung,
    by_rung,
    climb,
    previous_sqnrs_db,
)

SIGNAL = torch.randn(2000, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(2000, generator=torch.Generator().manual_seed(1))
OTHER = torch.randn(2000, generator=torch.Generator().manual_seed(2))
QUANTIZED_OUTPUT = SIGNAL + 0.01 * NOISE
SHIPPED_OUTPUT = QUANTIZED_OUTPUT + 0.001 * OTHER


def outputs(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"sample": tensor}


def test_quantization_and_lowering_are_separate_numbers():
    quantized, shipped = climb(
        outputs(SIGNAL),
        [
            (QUANTIZED, outputs(QUANTIZED_OUTPUT), ""),
            (ARTIFACT, outputs(SHIPPED_OUTPUT), ""),
        ],
    )

    assert quantized.float_sqnr_db == pytest.approx(40, abs=0.3)
    assert quantized.previous_sqnr_db == quantized.float_sqnr_db
    assert quantized.quantized_sqnr_db is None
    assert shipped.float_sqnr_db == pytest.approx(40, abs=0.4)
    assert shipped.previous_sqnr_db == pytest.approx(60, abs=0.3)
    assert shipped.quantized_sqnr_db == shipped.previous_sqnr_db


def test_with_a_rung_between_lowering_is_still_measured_from_the_quantized_graph():
    rungs = climb(
        outputs(SIGNAL),
        [
            (QUANTIZED, outputs(QUANTIZED_OUTPUT), ""),
            (UNOPTIMIZED, outputs(SHIPPED_OUTPUT), ""),
            (ARTIFACT, outputs(SHIPPED_OUTPUT), ""),
        ],
    )

    assert rungs[2].previous_sqnr_db == 200
    assert rungs[2].quantized_sqnr_db == pytest.approx(60, abs=0.3)


@pytest.mark.parametrize("failed", [0, 1])
def test_a_rung_that_failed_makes_what_depends_on_it_nan(failed):
    answers = [
        (QUANTIZED, outputs(QUANTIZED_OUTPUT), ""),
        (ARTIFACT, outputs(SHIPPED_OUTPUT), ""),
    ]
    answers[failed] = (answers[failed][0], {}, "it broke")
    rungs = climb(outputs(SIGNAL), answers)

    assert math.isnan(rungs[failed].float_sqnr_db)
    assert math.isnan(rungs[1].previous_sqnr_db)
    assert math.isnan(rungs[1].quantized_sqnr_db)
    assert rungs[failed].error == "it broke"


def test_calls_are_measured_on_every_rung():
    call = RecordedCall(0, {"x": torch.zeros(1)}, outputs(SIGNAL))
    records = {"unet.forward": RecordedMethod(1, (call,))}
    between = {"unet.forward": (Rung(QUANTIZED, lambda _: outputs(QUANTIZED_OUTPUT)),)}
    (result,) = compare_calls(
        records, {"unet.forward": lambda _: outputs(SHIPPED_OUTPUT)}, between=between
    )

    assert [rung.name for rung in result.calls[0].rungs] == [QUANTIZED, ARTIFACT]
    assert result.calls[0].sqnr_db == result.calls[0].rungs[1].float_sqnr_db


def test_a_rung_that_raises_is_a_failed_rung_and_the_artifact_is_still_measured():
    def broken(_):
        raise RuntimeError("no such kernel")

    call = RecordedCall(0, {"x": torch.zeros(1)}, outputs(SIGNAL))
    (result,) = compare_calls(
        {"unet.forward": RecordedMethod(1, (call,))},
        {"unet.forward": lambda _: outputs(SIGNAL)},
        between={"unet.forward": (Rung(QUANTIZED, broken),)},
    )

    assert result.calls[0].rungs[0].error == "RuntimeError: no such kernel"
    assert math.isnan(result.calls[0].rungs[1].quantized_sqnr_db)
    assert result.calls[0].sqnr_db == 200


def test_a_rung_may_compute_some_of_the_calls():
    computed = []

    def slow(tensors):
        computed.append(tensors["x"].item())
        return outputs(SHIPPED_OUTPUT)

    calls = tuple(
        RecordedCall(index, {"x": torch.tensor(float(index))}, outputs(SIGNAL))
        for index in range(9)
    )
    between = (
        Rung(QUANTIZED, lambda _: outputs(QUANTIZED_OUTPUT)),
        Rung(UNOPTIMIZED, slow, most=3),
    )
    (result,) = compare_calls(
        {"unet.forward": RecordedMethod(9, calls)},
        {"unet.forward": lambda _: outputs(SHIPPED_OUTPUT)},
        between={"unet.forward": between},
    )
    rungs = by_rung((call.index, call.rungs) for call in result.calls)

    assert computed == [0, 4, 8]
    assert {name: [index for index, _ in found] for name, found in rungs.items()} == {
        QUANTIZED: list(range(9)),
        UNOPTIMIZED: [0, 4, 8],
        ARTIFACT: list(range(9)),
    }
    assert previous_sqnrs_db(rung for _, rung in rungs[ARTIFACT]) == [200, 200, 200]
    assert all(rung.quantized_sqnr_db == pytest.approx(60, abs=0.3) for _, rung in rungs[ARTIFACT])
