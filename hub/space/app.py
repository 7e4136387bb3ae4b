"""Serve the web page of transformers-massformer as a Space."""

import os
from pathlib import Path

from transformers_massformer.demo.page import serve


if __name__ == "__main__":
    serve(os.environ.get("MASSFORMER_MODEL") or Path(__file__).with_name("massformer-photo"))
