"""Checkpoints of a training run: complete, incomplete and failed ones."""

import contextlib
import json
import re
import shutil
from collections.abc import Generator
from pathlib import Path

from safetensors import SafetensorError


STATE_FILE = "trainer_state.json"
# Substrings of PyTorch's errors about files that could not be written.
WRITE_FAILURES = ("PytorchStreamWriter", "No space left", "unexpected pos", "File too large")


@contextlib.contextmanager
def whole_or_not_at_all(folder: Path, what: str) -> Generator[None]:
    """
    Remove a folder if writing it fails.

    Args:
        folder (`Path`): Folder that the block writes.
        what (`str`): Name of its content in error messages.

    Raises:
        OSError: If it cannot be written, whatever the writing library raises.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in WRITE_FAILURES):
            raise
        shutil.rmtree(folder, ignore_errors=True)
        raise OSError(
            f"{what} could not be written to {folder} ({error}). Earlier checkpoints are intact: free some space and "
            "run the same command again."
        ) from error


def checkpoints(folder: Path) -> list[Path]:
    """Return all checkpoint folders, complete or not, latest first."""
    found = {
        int(match[1]): path for path in folder.glob("checkpoint-*") if (match := re.fullmatch(r".*-(\d+)", path.name))
    }
    return [found[step] for step in sorted(found, reverse=True)]


def is_complete(checkpoint: Path, num_processes: int) -> bool:
    """Return whether all files are there: the state is written last, the random state once per process."""
    try:
        json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    states = ["rng_state.pth"] if num_processes == 1 else [f"rng_state_{rank}.pth" for rank in range(num_processes)]
    return all((checkpoint / name).is_file() for name in states)


def last_checkpoint(folder: str | Path, num_processes: int) -> Path | None:
    """
    Return the latest complete checkpoint; incomplete ones are ignored.

    Args:
        folder (`str` or `Path`): Output folder of the training run.
        num_processes (`int`): Number of training processes.
    """
    return next((path for path in checkpoints(Path(folder)) if is_complete(path, num_processes)), None)


def remove_checkpoints(folder: str | Path):
    """Remove all checkpoints, complete or not."""
    for path in checkpoints(Path(folder)):
        shutil.rmtree(path)
