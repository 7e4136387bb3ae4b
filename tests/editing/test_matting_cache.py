"""Test where numba, which pymatting needs, stores its code."""

import os
from types import SimpleNamespace

import pytest

from transformers_massformer.editing import matting


@pytest.mark.parametrize("writable", ["own", "package", "user", None])
def test_numba_gets_a_cache_where_it_finds_none(tmp_path, monkeypatch, writable):
    places = {"own": tmp_path / "own", "package": tmp_path / "__pycache__", "user": tmp_path / "user" / "numba"}
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(matting.importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(matting, "user_cache", lambda: tmp_path / "user")
    monkeypatch.setattr(matting, "temporary_cache", lambda name: tmp_path / "temporary")
    monkeypatch.setattr(matting, "is_writable", lambda folder: folder == places.get(writable))
    monkeypatch.delitem(matting.sys.modules, "numba", raising=False)
    warnings = []
    monkeypatch.setattr(matting.logger, "warning", warnings.append)
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    if writable == "own":
        monkeypatch.setenv("NUMBA_CACHE_DIR", str(places["own"]))
    before = os.environ.get("NUMBA_CACHE_DIR")
    # Restored after the test.
    monkeypatch.setattr(matting.os, "environ", dict(os.environ))
    matting.use_writable_cache()
    after = matting.os.environ.get("NUMBA_CACHE_DIR")
    assert after == (str(tmp_path / "temporary") if writable is None else before)
    assert len(warnings) == (writable is None)
