"""What an analysis costs: the factor that reruns from the first change on save, and how workers share it.

Processor time counts, so that others on the machine disturb little; for workers the clock of the wall does.

    python -m benchmarks.analysis_cost samples/shapes
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from qdx.analyze.noise import Bench, Change
from qdx.analyze.session import Session, open_session
from qdx.analyze.settings import AnalysisSettings
from qdx.exporter.measure.mixed_run import Walk
from qdx.exporter.measure.reruns import Reruns
from qdx.sweep.workers import one_thread


def main() -> None:
    """Prints a row for each option, and one for each number of workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--target", default="openvino")
    parser.add_argument("--options", default="int8,int4,int8/int8")
    parser.add_argument("--calls", type=int, default=4)
    parser.add_argument("--workers", type=int, nargs="*", default=[])
    arguments = parser.parse_args()
    with open_session(
        arguments.model,
        target=arguments.target,
        settings=AnalysisSettings(
            options=arguments.options.split(","), calls=arguments.calls, workers=1
        ),
    ) as session:
        with one_thread():
            factors(session)
        for workers in arguments.workers:
            shared(session, workers)


def factors(session: Session) -> None:
    """Reruns of every group alone against whole runs of the same, and against plain runs of the float graph."""
    print("graph, option                        nodes  rerun ms  whole ms  factor  kept MB")
    recorded = session.survey.recorded[0]
    bench: Bench = session.survey.bench(recorded)
    for (where, option), quantized in session.prepared.graphs.items():
        if where != recorded.moment.where:
            continue
        label = next(o.option.label for o in session.findings.offered if o.option.id == option)
        keys = [
            tuple(site.key for site in one.sites)
            for one in session.findings.bound[where]
            if option in one.options
        ]
        reruns = Reruns(quantized.floats, bench.inputs[0], bench.limit_bytes)
        nodes = sum(Change(quantized, group).work for group in keys) / len(keys)
        for group in keys:  # weights are quantized at their first use
            reruns.run(dict.fromkeys(group, quantized.pair))
        start = time.process_time()
        for group in keys:
            reruns.run(dict.fromkeys(group, quantized.pair))
        rerun = (time.process_time() - start) / len(keys)
        few = keys[:: max(1, len(keys) // 12)]
        start = time.process_time()
        for group in few:
            Walk(quantized.pair, bench.inputs[0], set(group)).run()
        whole = (time.process_time() - start) / len(few)
        total = sum(node.op != "placeholder" for node in quantized.floats.nodes)
        print(
            f"{where} {label:30} {nodes:4.0f}/{total}  {1e3 * rerun:8.1f}  {1e3 * whole:8.1f}  "
            f"{whole / rerun:6.2f}  {reruns.kept_bytes / 1e6:7.1f}"
        )


def shared(session: Session, workers: int) -> None:
    """The whole survey anew by some workers."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        session.survey.run(Path(folder), workers=workers, progress=session.progress)
        seconds = time.monotonic() - start
    print(f"{session.survey.jobs} measurements, {workers} workers: {seconds:.1f} s")


if __name__ == "__main__":
    main()
