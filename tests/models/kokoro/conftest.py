"""The authors' own code (PyPI kokoro 0.9.4), to compare with."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def authors() -> SimpleNamespace:
    """`model`, `istftnet` of kokoro, imported without kokoro/__init__.py, which needs spaCy."""
    if "kokoro" not in sys.modules:
        spec = importlib.util.find_spec("kokoro")
        if spec is None or spec.submodule_search_locations is None:
            pytest.fail("kokoro is not installed: pip install --no-deps kokoro==0.9.4 loguru", pytrace=False)
        package = ModuleType("kokoro")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["kokoro"] = package
    names = ("model", "istftnet")
    return SimpleNamespace(**{name: importlib.import_module(f"kokoro.{name}") for name in names})
