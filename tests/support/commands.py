"""Run commands of `massformer` in this process, and Python in a new one."""

import subprocess
import sys

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


def run_python(*arguments, code: int = 0, **options) -> subprocess.CompletedProcess[str]:
    """Run Python with arguments in a new process, by default in the repository, and check its exit code."""
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, **{"cwd": ROOT} | options, capture_output=True, text=True, check=False)
    assert result.returncode == code, result.stderr
    return result
