"""Run the command as a module, for launchers: `accelerate launch -m transformers_massformer.cli`."""

from . import app


app()
