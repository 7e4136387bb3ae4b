"""The checkpoints in a training's folder."""

import json
import re
import shutil
from pathlib import Path


STATE_FILE = "trainer_state.json"


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
