"""The checkpoints in a training's folder."""

import contextlib
import json
import re
import shutil
from collections.abc import Generator
from pathlib import Path

from safetensors import SafetensorError


STATE_FILE = "trainer_state.json"
# How torch says that a file could not be written.
WRITE_FAILURES = ("PytorchStreamWriter", "No space left", "unexpected pos", "File too large")


@contextlib.contextmanager
def whole_or_not_at_all(folder: Path, what: str) -> Generator[None]:
    """
    Removes a folder that could not be written to its end.

    Args:
        folder (`Path`): What is written in the block.
        what (`str`): What errors call it.

    Raises:
        OSError: If it cannot be written, whatever the libraries that write it raise.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in WRITE_FAILURES):
            raise
        shutil.rmtree(folder, ignore_errors=True)
        raise OSError(
            f"{what} could not be written to {folder} ({error}). Earlier checkpoints are intact: make room there, and "
            "run the same command again."
        ) from error


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints, whole or not, the last first."""
    found = {
        int(match[1]): path for path in folder.glob("checkpoint-*") if (match := re.fullmatch(r".*-(\d+)", path.name))
    }
    return [found[step] for step in sorted(found, reverse=True)]


def is_whole(checkpoint: Path, num_processes: int) -> bool:
    """Whether everything was written: the state comes last, and each process has random numbers of its own."""
    try:
        json.loads((checkpoint / STATE_FILE).read_text())
    except (OSError, ValueError):
        return False
    states = ["rng_state.pth"] if num_processes == 1 else [f"rng_state_{rank}.pth" for rank in range(num_processes)]
    return all((checkpoint / name).is_file() for name in states)


def last_checkpoint(folder: str | Path, num_processes: int) -> Path | None:
    """
    The last checkpoint that was written to its end.

    Args:
        folder (`str` or `Path`): The training's.
        num_processes (`int`): Processes of the training.
    """
    return next((path for path in checkpoints(Path(folder)) if is_whole(path, num_processes)), None)


def remove_checkpoints(folder: str | Path):
    """Removes all of them, whole or not."""
    for path in checkpoints(Path(folder)):
        shutil.rmtree(path)
