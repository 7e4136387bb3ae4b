"""What tests share: tiny models and data, golden weights, and where things are."""

from pathlib import Path


ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
