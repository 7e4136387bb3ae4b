"""Write JSON files that every parser reads."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .files import written_whole


def without_nan(value: Any) -> Any:
    """Replace the numbers that JSON does not have, NaN and infinities, by `None`; tuples become lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return value


def write_json(values: Any, path: str | Path, indent: int | None = 1):
    """
    Write values to a JSON file, which is either complete or unchanged. NaN, such as the score of an absent class, and
    infinities become null.

    Args:
        values (`Any`): JSON-serializable values.
        path (`str` or `Path`): The file.
        indent (`int`, *optional*, defaults to 1): Spaces per level, or `None` for a single line.
    """
    with written_whole(path) as partial:
        partial.write_text(json.dumps(without_nan(values), indent=indent, allow_nan=False) + "\n", encoding="utf-8")
