"""
Entry point of the `massformer` command, outside the package so that help and completion run without PyTorch.

Importing `transformers_massformer` registers its models with transformers and so loads PyTorch, which takes seconds.
This module puts the package into `sys.modules` before its code runs, as in the recipe for lazy imports of `importlib`;
`transformers_massformer.cli` runs that code when a command is called.
"""

import importlib.util
import os
import sys


def use_utf8():
    """
    Start Python again in UTF-8 mode where the locale has another encoding, as `LC_ALL=C` does: arguments with umlauts
    would otherwise arrive damaged, and files with such names could not be opened.
    """
    has_utf8 = sys.getfilesystemencoding() == "utf-8" or os.environ.get("PYTHONUTF8") == "1"
    if os.name == "posix" and not has_utf8 and sys.executable:
        os.environ["PYTHONUTF8"] = "1"
        # Options such as -X utf8=0 come before the program and take precedence over the variable.
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def main():
    """Run the command line."""
    use_utf8()
    spec = importlib.util.find_spec("transformers_massformer")
    sys.modules["transformers_massformer"] = importlib.util.module_from_spec(spec)  # ty: ignore[invalid-argument-type]

    from transformers_massformer.cli import app

    app()
