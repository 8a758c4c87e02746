"""Find the modules of a folder by listing it, so that a new file takes part without being named anywhere."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType


def import_submodules(package: str) -> list[ModuleType]:
    """Import every module of a package, in the order of their names, and return them; packages inside it are left out."""
    modules = pkgutil.iter_modules(import_module(package).__path__)
    return [import_module(f"{package}.{module.name}") for module in modules if not module.ispkg]
