# Copyright 2026 The transformers-massformer authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""Refusal of arguments that nothing reads"""

import difflib
import inspect
from collections.abc import Collection, Iterable
from typing import Any

from transformers.utils import TransformersKwargs


# Arguments that the library passes to any model; some have no effect on models of images.
LIBRARY_ARGUMENTS = frozenset({*TransformersKwargs.__annotations__, "return_dict"})
# Those of them that choose the outputs.
OUTPUT_ARGUMENTS = frozenset({"output_attentions", "output_hidden_states", "return_dict"})


class UnknownArgumentError(TypeError, ValueError):
    """Argument that nothing reads: a `TypeError` as of any function, and a `ValueError` as of any wrong value."""


def close_names(name: str, known: Iterable[str]) -> list[str]:
    """Return the known names that a name may be a misspelling of, the closest first."""
    return difflib.get_close_matches(name, sorted(known), cutoff=0.8)


def refuse_unknown(owner: str, given: Iterable[str], known: Collection[str]):
    """
    Refuse arguments that are not known.

    Args:
        owner (`str`): Name of the callee, for the message.
        given (`Iterable[str]`): Names of the arguments.
        known (`Collection[str]`): Names that the callee reads.

    Raises:
        UnknownArgumentError: If some are unknown. The message lists close matches and all known names.
    """
    unknown = [name for name in given if name not in known]
    if not unknown:
        return
    meant = [match for name in unknown for match in close_names(name, known)[:1]]
    question = f" Did you mean {', '.join(meant)}?" if meant else ""
    raise UnknownArgumentError(
        f"{owner} does not read {', '.join(unknown)}.{question} It reads {', '.join(sorted(known))}."
    )


def refuse_unknown_inputs(model: Any, kwargs: Iterable[str]):
    """
    Refuse arguments of `forward` that a model does not read, such as a misspelled `labels`, which would otherwise
    leave out the loss without a word.

    Args:
        model (`PreTrainedModel`): The model.
        kwargs (`Iterable[str]`): Names of what its `forward` received beyond its own arguments.

    Raises:
        UnknownArgumentError: If neither the model nor the library has such an argument.
    """
    unknown = [name for name in kwargs if name not in LIBRARY_ARGUMENTS]
    if unknown:
        own = {name for name in inspect.signature(model.forward).parameters if name != "kwargs"}
        refuse_unknown(f"{type(model).__name__}.forward", unknown, own | OUTPUT_ARGUMENTS)


__all__ = ["UnknownArgumentError", "close_names", "refuse_unknown", "refuse_unknown_inputs"]
