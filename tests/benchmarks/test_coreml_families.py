"""The two metrics of packages are those that their table says."""

from __future__ import annotations

import math

import torch

from benchmarks.coreml_families import Fidelity


def test_the_metrics_are_those_of_their_formulas() -> None:
    reference = torch.tensor([3.0, -4.0])
    found = Fidelity.of(reference, reference + torch.tensor([0.03, -0.04]))

    assert math.isclose(found.sqnr_db, 20 * math.log10(5 / 0.05), abs_tol=1e-3)
    assert math.isclose(found.psnr_db, 20 * math.log10(4 / (0.05 / math.sqrt(2))), abs_tol=1e-3)


def test_the_least_of_each_counts_and_bad_data_shows() -> None:
    one, other = Fidelity(50.0, 60.0), Fidelity(40.0, 70.0)

    assert Fidelity.least([one, other]) == Fidelity(40.0, 60.0)
    assert math.isnan(Fidelity.least([one, Fidelity(math.nan, 1.0)]).sqnr_db)
