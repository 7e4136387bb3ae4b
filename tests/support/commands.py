"""Run commands of `massformer` in this process, and Python in a new one."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable

from click.testing import Result
from typer.testing import CliRunner

from support import ROOT
from transformers_massformer.cli import app


def run(*arguments, code: int = 0) -> Result:
    """Run a command in this process and check its exit code."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def run_until(is_started: Callable[[], bool], sent: signal.Signals, *arguments) -> tuple[int, str]:
    """Run a command in a new process, send it a signal once it has started, and return its exit code and output."""
    # Processes started in the background inherit that the signal is ignored; a terminal's do not.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from _massformer import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            deadline = time.monotonic() + 120
            while not is_started() and time.monotonic() < deadline:
                time.sleep(0.002)
            process.send_signal(sent)
            printed, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, printed


def run_python(*arguments, code: int = 0, **options) -> subprocess.CompletedProcess[str]:
    """Run Python with arguments in a new process, by default in the repository, and check its exit code."""
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, **{"cwd": ROOT} | options, capture_output=True, text=True, check=False)
    assert result.returncode == code, result.stderr
    return result
