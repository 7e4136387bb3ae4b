"""Identify models, and the settings that change predictions, to tell whether a result is still up to date."""

import re
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file, extract_commit_hash

from ..utils.fingerprint import file_hash
from .loading import ADAPTER_FILE, HUB_NAME, base_of_adapter
from .predictor import PredictionOptions
from .tiling import default_overlap


# Raise it when the same photograph, model and options give another result than before, beyond rounding: results of
# earlier versions are then made again. The package's own version would also do so where nothing has changed.
RESULTS_VERSION = 1
MODEL_SUFFIXES = (".bin", ".json", ".model", ".onnx", ".safetensors", ".txt")
# Files of a training that do not belong to the model that it wrote.
NOT_OF_THE_MODEL = ("eval_results.json", "trainer_state.json", "training.json", "training_args.bin")


def model_files(model: Path) -> list[Path]:
    """Return the files of a model's folder that may change its predictions, or the file of an exported model."""
    if model.is_file():
        return [model]
    return sorted(
        path for path in model.glob("*") if path.suffix in MODEL_SUFFIXES and path.name not in NOT_OF_THE_MODEL
    )


def model_identity(model: str | Path) -> list[list[str]]:
    """
    Identify a model by its content, so that a copy in another folder is the same model.

    Args:
        model (`str` or `Path`): A folder, an exported model, or a name on the Hub.

    Returns:
        `list[list[str]]`: Names and hashes of the files, followed by those of the model that an adapter adapts; or the
        name and the commit on the Hub.

    Raises:
        FileNotFoundError: If there is no such model.
    """
    path = Path(model)
    if not path.exists() and not re.fullmatch(HUB_NAME, str(model)):
        raise FileNotFoundError(f"There is no model folder {model}.")
    if not path.exists():
        return [[str(model), hub_commit(str(model))]]
    base = base_of_adapter(path) if (path / ADAPTER_FILE).exists() else None
    # The content of an exported model counts, not its name.
    found = [["" if path.is_file() else each.name, file_hash(each)] for each in model_files(path)]
    return found + (model_identity(base) if base else [])


def hub_commit(name: str) -> str:
    """
    Return the commit that a name on the Hub stands for: the latest one, or without a connection the one in the cache.

    Raises:
        FileNotFoundError: If there is no such model.
    """
    try:
        file = cached_file(name, "config.json")
    except (OSError, ValueError) as error:
        raise FileNotFoundError(f"There is no model at {name}: {error}") from error
    return extract_commit_hash(file, None) or file_hash(Path(str(file)))


def prediction_settings(model: str | Path, options: PredictionOptions, dtype: Any) -> dict[str, Any]:
    """
    Return everything but the photograph that changes a prediction, as JSON values by name.

    Args:
        model (`str` or `Path`): The model, see [`model_identity`].
        options ([`PredictionOptions`]): How photographs pass through it.
        dtype (`torch.dtype` or `str`): Type of the weights.
    """
    overlap = default_overlap(options.tile) if options.tile and options.overlap is None else options.overlap
    return {
        "model": model_identity(model),
        # Whatever was given, what it comes to: the order of scales does not matter, and some options imply others.
        "native_input": options.native_input and not (options.tile or options.averages),
        "peer_postprocess": options.peer_postprocess,
        "tile": None if options.tile is None else [options.tile, overlap],
        "scales": sorted(options.scales),
        "flip": options.flip,
        "inference": options.inference,
        "dtype": str(dtype).removeprefix("torch."),
        "results version": RESULTS_VERSION,
    }
