"""Import optional dependencies."""

import importlib
from types import ModuleType


class MissingExtraError(ImportError):
    """Error for an optional dependency that is not installed; its message names the `pip install` command."""


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """
    Import a module that belongs to an optional dependency.

    Args:
        module (`str`): Full name of the module, such as `"matplotlib.pyplot"`.
        extra (`str`): The package's extra that installs it.
        purpose (`str`): What needs the module, the subject of the error's sentence.

    Raises:
        MissingExtraError: If the module is not installed. The message names the `pip install` command.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A module that is installed but lacks a dependency of its own is another problem.
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise MissingExtraError(
            f"{purpose} needs {module}: pip install 'transformers-massformer[{extra}]'", name=error.name
        ) from error
