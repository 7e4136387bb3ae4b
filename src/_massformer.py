"""
Entry point of the `massformer` command, outside the package so that help and completion run without PyTorch.

Importing `transformers_massformer` registers its models with transformers and so loads PyTorch, which takes seconds.
This module puts the package into `sys.modules` before its code runs, as in the recipe for lazy imports of `importlib`;
`transformers_massformer.cli` runs that code when a command is called.
"""

import importlib.util
import sys


def main():
    """Run the command line."""
    spec = importlib.util.find_spec("transformers_massformer")
    sys.modules["transformers_massformer"] = importlib.util.module_from_spec(spec)  # ty: ignore[invalid-argument-type]

    from transformers_massformer.cli import app

    app()
