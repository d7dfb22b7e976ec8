"""What moved between two reports, the worst first."""

from __future__ import annotations

from qdx.exporter.plan import load_plan
from qdx.verification.measure.components import MethodResult
from qdx.verification.measure.picture import OutputResult, PipelineResult
from qdx.verification.report.diff import compare_reports
from tests.support.judging import call_result, report_of


def report(unet_db=60.0, vae_db=70.0, psnr_db=45.0, plan="w8", **more):
    methods = [
        MethodResult(name, "forward", 1, (call_result(0, value),))
        for name, value in (("unet", unet_db), ("vae", vae_db))
    ]
    picture = OutputResult("pictures", {"psnr_db": psnr_db, "ssim": 0.99})
    given = {"bundle_plan": load_plan(plan).to_json(), **more}
    return report_of(methods, pipeline=PipelineResult({"images": picture}), **given).stored


def moved(before, after):
    return compare_reports(before, after, ("old", "new"))


def test_equal_reports_say_that_nothing_moved():
    found = moved(report(), report())

    assert not found.regressed
    assert "no measure moved" in str(found)
    assert (found.plan, found.facts, found.versions) == ((), {}, {})


def test_a_gate_that_now_fails_comes_first_then_what_fell_most():
    found = moved(report(), report(unet_db=57, vae_db=40))
    text = str(found).splitlines()
    rows = [line.split()[0] for line in text[text.index("") + 2 :] if line]

    assert rows[:2] == ["vae.sqnr_db", "vae.psnr_db"]
    assert rows.index("unet.sqnr_db") > 0
    assert "passed -> failed" in text[text.index("") + 2]
    assert found.regressed
    assert [gate.name for gate in found.regressions] == [
        "baseline.unet.sqnr_db",
        "baseline.vae.sqnr_db",
    ]


def test_changes_beyond_what_is_compared_are_told_as_such():
    one, other = report(unet_db=128.6), report(unet_db=58.6)

    assert "only up to where rounding begins" in str(moved(one, other))
    assert "only up to" not in str(moved(other, report(unet_db=50.2)))


def test_an_improvement_is_told_and_is_no_regression():
    found = moved(report(), report(unet_db=70, psnr_db=50))
    ways = {one.name: one.way for one in found.measures}

    assert ways["unet.sqnr_db"] == ways["pipeline.psnr_db"] == "better"
    assert not found.regressed


def test_plan_versions_and_whose_contract_it_is_are_told():
    found = moved(
        report(), report(plan="w4", versions={"torch": "3"}, contract_source="plan ci.json")
    )

    assert found.plan == ("w4", "ends")
    assert found.versions == {"openvino": ("2026.4", None), "torch": ("2.13.0", "3")}
    assert found.facts["contract"] == ("bundle", "plan ci.json")


def test_reports_of_different_verifications_say_so_and_are_still_compared():
    found = moved(report(), report(unet_db=40, target="openvino-x", seed=3))

    assert len(found.unlike) == 2
    assert "different verifications" in str(found)
    assert found.regressions == ()
    assert found.measures[0].name.startswith("unet.")


def test_what_is_no_longer_measured_is_worse():
    found = moved(report(), report(unet_db=float("nan")))

    assert (found.measures[0].name, found.measures[0].way) == ("unet.sqnr_db", "worse")
    assert found.measures[0].after is None


def test_json_is_plain_and_has_the_same_order():
    found = moved(report(), report(vae_db=40))
    data = found.to_json()

    assert data["schema"] == "qdx.report-diff/1"
    assert [one["name"] for one in data["measures"]] == [one.name for one in found.measures]
    assert data["regressed"] is True
