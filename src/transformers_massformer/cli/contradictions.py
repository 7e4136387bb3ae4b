"""Options of a command line that contradict each other or would have no effect."""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any


# An option may be named with one of its values, as in `"result_format=parquet"`.
# For each command, options that only have an effect together with one of some others.
NEEDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "segment": {
        "overlap": ("tile",),
        "bokeh_strength": ("bokeh",),
        "refine_mattes": ("mattes", "cutouts", "bokeh"),
        "num_actors": ("ray",),
        "cpus_per_actor": ("ray",),
        "gpus_per_actor": ("ray",),
        "image_column": ("ray",),
        "result_format=parquet": ("ray",),
    },
    "evaluate": {"overlap": ("tile",)},
    "label": {"overlap": ("tile",)},
}
# For each command, options with which some others have no effect.
EXCLUDES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "segment": {
        # Processes have a share of GPUs, and take one photograph after the other.
        "ray": ("device", "workers"),
        # Rows have label maps only.
        "result_format=parquet": ("overlay", "mattes", "cutouts", "bokeh", "show_semantic_priors"),
    },
    "evaluate": {
        "profile_only": (
            *("data", "split", "labels", "add_class", "label_map", "worst"),
            *("boundary_ratio", "bf1_tolerance", "release_compatible", "overwrite"),
        )
    },
    "label": {
        "review": (
            *("detector", "segmenter", "score", "presence_score", "mask_score", "min_area", "max_area"),
            *("tile", "overlap", "batch_size", "dtype", "overwrite"),
        )
    },
}
# Names of the arguments that the command line gives, as opposed to defaults.
GIVEN: ContextVar[frozenset[str]] = ContextVar("given", default=frozenset())


def remember_given(context: Any) -> frozenset[str]:
    """Keep and return the names of the arguments that a command line gives, alone and with their values."""
    found = [name for name in context.params if getattr(context.get_parameter_source(name), "name", "") != "DEFAULT"]
    GIVEN.set(frozenset([*found, *(f"{name}={context.params[name]}" for name in found)]))
    return GIVEN.get()


def was_given(name: str) -> bool:
    """Tell whether the command line gives an argument, even with its default value."""
    return name in GIVEN.get()


def check_given(command: str, given: frozenset[str], options: Mapping[str, str]):
    """
    Refuse options that contradict each other or would have no effect.

    Args:
        command (`str`): Name of the command.
        given (`frozenset[str]`): Names of the arguments that the command line gives.
        options (`Mapping[str, str]`): How each argument is written on the command line.

    Raises:
        ValueError: If there are any.
    """

    def written(name: str) -> str:
        option, separator, value = name.partition("=")
        return f"{options[option]}{separator and ' '}{value}"

    for name, needed in NEEDS.get(command, {}).items():
        if name in given and not given & set(needed):
            wanted = " or ".join(written(each) for each in needed)
            raise ValueError(f"{written(name)} has no effect without {wanted}.")
    for name, excluded in EXCLUDES.get(command, {}).items():
        useless = [written(each) for each in excluded if each in given]
        if name in given and useless:
            raise ValueError(f"{', '.join(useless)} would have no effect with {written(name)}; leave out one of them.")
