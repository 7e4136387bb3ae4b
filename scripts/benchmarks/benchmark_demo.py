"""Measure the web page's server: time until it answers, time per photo, and memory over many visitors."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import httpx
import PIL.Image
import psutil
import typer
from gradio_client import Client, handle_file


# Sizes of the small photos, in turns, and photos per visitor.
SIZES, PER_VISITOR = ((1200, 900), (700, 1100)), 5


def free_port() -> int:
    """Return a TCP port that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for_page(process: subprocess.Popen, address: str) -> float:
    """Wait until the page answers and return the seconds it took."""
    start = time.perf_counter()
    while process.poll() is None:
        try:
            httpx.get(address).raise_for_status()
            return time.perf_counter() - start
        except httpx.HTTPError:
            time.sleep(0.1)
    raise RuntimeError("The server stopped before it answered; see its message above.")


def send(address: str, photos: list[Path], folder: Path):
    """Send photos as one visitor and yield the page's message about each."""
    client = Client(address, verbose=False, download_files=str(folder), analytics_enabled=False)
    for photo in photos:
        yield client.predict(handle_file(str(photo)), api_name="/segment")[1]
    client.close()


def main(
    photo: Annotated[Path, typer.Argument(help="Large photo, sent first.")],
    requests: Annotated[int, typer.Option(help="Number of small photos sent afterwards.", min=1)] = 50,
):
    port = free_port()
    command = [sys.executable, "-m", "transformers_massformer.cli", "demo", "--port", str(port)]
    with tempfile.TemporaryDirectory() as name, subprocess.Popen(command) as process:
        folder, address, server = Path(name), f"http://127.0.0.1:{port}/", psutil.Process(process.pid)
        try:
            typer.echo(f"answers after {wait_for_page(process, address):.1f} s, load {os.getloadavg()[0]:.1f}")
            typer.echo(f"{photo}: {next(send(address, [photo], folder))}")
            small = [folder / f"{index}.jpg" for index in range(len(SIZES))]
            for path, size in zip(small, SIZES, strict=True):
                PIL.Image.open(photo).convert("RGB").resize(size).save(path)
            for first in range(0, requests, PER_VISITOR):
                turn = [small[index % len(small)] for index in range(first, min(first + PER_VISITOR, requests))]
                for done, _ in enumerate(send(address, turn, folder), first + 1):
                    if done == 1 or done % 10 == 0:
                        typer.echo(f"after {done}: {server.memory_info().rss / 2**20:.0f} MiB resident")
        finally:
            process.send_signal(signal.SIGINT)


if __name__ == "__main__":
    typer.run(main)
