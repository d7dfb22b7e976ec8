"""`qdx analyze` as a function: what each part of a model tolerates on a target, in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qdx.analyze.folder import noise_file, write_analysis
from qdx.analyze.folder_check import check_folder
from qdx.analyze.latency_job import latency_of, source_of, with_latency
from qdx.analyze.session import open_session
from qdx.analyze.settings import USUAL, AnalysisSettings
from qdx.exporter.progress import SILENT
from qdx.targets.profile import TargetProfile, load_target

if TYPE_CHECKING:
    from qdx.analyze.analysis import Analysis
    from qdx.exporter.capture.model import Model
    from qdx.exporter.progress import Progress

__all__ = ["analyze"]


def analyze(
    model: Model,
    *,
    target: str | Path | TargetProfile,
    output: Path | str,
    settings: AnalysisSettings = USUAL,
    force: bool = False,
    progress: Progress = SILENT,
) -> Analysis:
    """Measures what every option of every part of a model does to the output, teacher-forced on float trajectories.

    The same inputs give the same files to the bit, with any number of workers, interrupted or not.

    Args:
        model: A diffusers pipeline folder, or a pipeline in memory.
        target: A target, its name, or a TOML file of your own.
        output: The folder; it must not exist unless `force`.
        settings: What is analyzed, and how.
        force: Replace an existing analysis.
        progress: Shows the steps.

    Raises:
        UsageError: An argument is wrong, or nothing is offered.
        InvalidPlan, InvalidTarget, InvalidModel, TargetRefusal, StorageError: See their texts.
    """
    output = Path(output)
    check_folder(output, force=force)
    profile = target if isinstance(target, TargetProfile) else load_target(target)
    source_of(profile, settings.latency)
    with open_session(model, target=profile, settings=settings, progress=progress) as session:
        analysis, arrays = session.analysis()
        analysis = with_latency(
            analysis, latency_of(session, settings.latency, threads=settings.threads)
        )
    write_analysis(analysis, noise_file(arrays), output)
    return analysis
