"""Call a function in a Python process of its own, which has one thread."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
"""Numerical libraries read these when they are imported, so a process must be started with them."""


def fresh(target: str, *arguments: Any) -> Any:
    """Call `target` in a new process and return what it returned.

    Its standard error is this process's own, so that progress and tracebacks are seen at once.

    Args:
        target: "module:function".
        *arguments: of the function; what JSON can hold.

    Returns:
        What the function returned, having been through JSON.

    Raises:
        RuntimeError: if the process failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.fresh", target, json.dumps(arguments)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **ONE_THREAD},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{target}{arguments} ended with exit status {done.returncode}; its error is above")
    # libraries may have printed lines of their own before
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Be the new process: call the function named on the command line and print what it returns."""
    module, _, name = sys.argv[1].partition(":")
    returned = getattr(importlib.import_module(module), name)(*json.loads(sys.argv[2]))
    print(f"\n{json.dumps(returned)}", flush=True)


if __name__ == "__main__":
    main()
