"""Run the command as a module, for launchers: `accelerate launch -m transformers_massformer.cli`."""

from _massformer import use_utf8

from . import app


use_utf8()
app()
