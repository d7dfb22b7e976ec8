"""A score of the user's own: a function in a Python file that judges pictures by their prompts.

`--score FILE:FUNCTION` runs that file's code. Nothing else makes qdx run Python that it was not installed with.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qdx.exporter.errors import UsageError, first_line, quoted
from qdx.verification.measure.picture import pictures_of

__all__ = ["Score", "load_score"]


@dataclass(frozen=True)
class Score:
    """A loaded score.

    Attributes:
        name: `FILE:FUNCTION` without folders.
        function: Takes one picture, float64 [height, width, channels] from 0 to 1, and its prompt; gives
            a number from 0 to 1.
    """

    name: str
    function: Callable[[np.ndarray[Any, Any], str], Any]

    def mean(self, pictures: np.ndarray[Any, Any] | None, prompts: Sequence[str]) -> float:
        """The mean score of one run's pictures; NaN where there are none or values are not finite.

        Args:
            pictures: Of any batch.
            prompts: One, or one for each picture; each prompt may have several pictures in a row.

        Raises:
            UsageError: The function fails, or its answer is no number from 0 to 1.
        """
        if pictures is None or not prompts or not np.isfinite(pictures).all():
            return math.nan
        batch = pictures_of(pictures)
        each = max(1, len(batch) // len(prompts))
        scores = [
            self._one(picture, prompts[min(number // each, len(prompts) - 1)])
            for number, picture in enumerate(batch)
        ]
        return float(np.mean(scores))

    def _one(self, picture: np.ndarray[Any, Any], prompt: str) -> float:
        try:
            score = float(self.function(picture, prompt))
        except Exception as error:  # the user's own code may raise anything
            raise UsageError(
                f"--score: {self.name} failed for {quoted(prompt)}: "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error
        if not 0 <= score <= 1:
            raise UsageError(f"--score: {self.name} gave {score}, expected a number from 0 to 1")
        return score


def load_score(text: str) -> Score:
    """Loads the function that `FILE:FUNCTION` names, and runs the file for it.

    A file in a package is imported as its module, so that it can import its neighbours.

    Raises:
        UsageError: There is no such file or function, or the file fails.
    """
    file, _, name = text.rpartition(":")
    path = Path(file).absolute()
    if not file or not name.isidentifier() or path.suffix != ".py" or not path.is_file():
        raise UsageError(
            f"--score: {quoted(text)}, expected FILE:FUNCTION",
            hint="such as samples/reader.py:slot_accuracy",
        )
    try:
        module = _imported(path)
    except Exception as error:
        raise UsageError(
            f"--score: {quoted(file)} fails: {type(error).__name__}: {first_line(error)}"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"--score: {quoted(file)} has no function {quoted(name)}")
    return Score(f"{path.name}:{name}", function)


def _imported(path: Path) -> Any:
    root, parts = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    if len(parts) == 1:
        spec = importlib.util.spec_from_file_location(f"qdx_score_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module
    sys.path.insert(0, str(root))
    try:
        return importlib.import_module(".".join(parts))
    finally:
        sys.path.remove(str(root))
