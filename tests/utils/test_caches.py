"""Test folders for caches."""

import os
import tempfile

import pytest

from transformers_massformer.utils.caches import is_writable, temporary_cache, user_cache


def test_writable_folders_are_found_by_writing(tmp_path):
    assert is_writable(tmp_path / "new" / "folder")
    (tmp_path / "file").write_text("")
    assert not is_writable(tmp_path / "file" / "folder")
    assert not is_writable(tmp_path / "file")


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="The system has no users by number.")
def test_a_temporary_cache_lasts_unless_others_could_write_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = temporary_cache("test")
    assert temporary_cache("test") == folder
    folder.chmod(0o777)
    other = temporary_cache("test")
    assert other != folder
    assert other.stat().st_mode & 0o077 == 0


def test_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache() == tmp_path / ".cache"
