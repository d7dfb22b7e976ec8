"""The version of a runtime is that of the first of its packages that is installed."""

from __future__ import annotations

import importlib.metadata

from qdx.targets import installed_version


def test_the_first_that_is_installed_tells():
    assert installed_version(("no-such-package", "packaging")) == importlib.metadata.version("packaging")  # fmt: skip
    assert installed_version(("no-such-package",)) is None
    assert installed_version(()) is None
