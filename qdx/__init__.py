"""qdx: any diffusers pipeline, one precision plan and a target become verified artifacts.

    qdx.export(model, target="openvino", plan="float16", output=folder)
    qdx.calibrate(model, plan="w8a8", output=file)
    qdx.build(bundle)  # TensorRT alone: the engines, on the machine with the GPU
    qdx.verify(bundle, model=model)
    qdx.open(bundle)  # a diffusers pipeline that runs on the target

Importing this package imports none of the heavy ones; the first use of a name does.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qdx.build import build as build
    from qdx.export import export as export
    from qdx.ranges import calibrate as calibrate
    from qdx.runtime import open_bundle as open  # noqa: A004 - the public name
    from qdx.verify import verify as verify

__version__ = "0.1.0"
__all__ = ["__version__", "build", "calibrate", "export", "open", "verify"]


_SAME_NAME = frozenset({"build", "export", "verify"})


class _CallableModule(ModuleType):
    """A module that is called like the function of the same name inside it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)


class _FrontDoor(ModuleType):
    """This package: `qdx.export` is a module and a function, whichever is asked for first.

    The import system sets a submodule as an attribute of its package, over any function of that
    name. So the submodules that share the name of their function become callable instead.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name in _SAME_NAME and type(value) is ModuleType:
            value.__class__ = _CallableModule
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in _SAME_NAME:
            return importlib.import_module(f"{self.__name__}.{name}")
        if name == "calibrate":
            return importlib.import_module(f"{self.__name__}.ranges").calibrate
        if name == "open":
            return importlib.import_module(f"{self.__name__}.runtime").open_bundle
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _FrontDoor
