"""Test text from the command line."""

import pytest

from transformers_massformer.utils.text import readable_names


def test_names_are_decoded_or_refused():
    damaged = "gebäude".encode().decode("ascii", "surrogateescape")
    assert readable_names(["Straße", damaged, "空", "a b"], "--labels") == ["Straße", "gebäude", "空", "a b"]
    with pytest.raises(ValueError, match="--labels .*is not UTF-8"):
        readable_names(["gebäude".encode("latin-1").decode("utf-8", "surrogateescape")], "--labels")
