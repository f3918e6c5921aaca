"""A run that is killed at a file operation ends, once it is continued, as if it had not been killed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill_every_write.py")


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler")
def test_killed_runs_end_as_if_nothing_had_happened() -> None:
    # Seven kills over all stages, both before and after the operation; with second kills and damaged checkpoints.
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", "7"], capture_output=True, text=True, timeout=540, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 kills, 0 different runs" in done.stdout
