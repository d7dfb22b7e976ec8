"""Sessions of one model that share a cache."""

from __future__ import annotations

from qdx.analyze.session import open_session
from qdx.analyze.settings import AnalysisSettings
from qdx.cache.store import Store


def test_targets_that_take_other_inputs_do_not_share_recorded_ones(smallest, tmp_path):
    settings = AnalysisSettings(
        parts=("noise",), plan="w8a8", call={"num_inference_steps": 2}, options=["int8"], calls=1, workers=1,
        cache=Store(tmp_path / "cache"),
    )  # fmt: skip
    shapes = set()
    for target in ("openvino", "onnxruntime"):
        with open_session(smallest, target=target, settings=settings) as session:
            (where,) = session.survey.bound
            graph = session.prepared.traced[where]
            (inputs,) = session.survey.recorded[0].inputs
            expected = {one.name: tuple(one.shape) for one in graph.inputs}
            assert {name: tuple(inputs[name].shape) for name in inputs} == expected
            shapes.add(expected["timestep"])
    assert len(shapes) == 2
