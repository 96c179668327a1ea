import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_killing_a_process_that_trains_and_saves_loses_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kills", "--kills", "5"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.stdout.startswith("5 kills, "), done.stderr
    assert "no checkpoint was lost, none is unreadable" in done.stdout
