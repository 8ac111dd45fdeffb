"""Schemathesis as a user would run it, against a service that listens: every check, every phase, sequences of
calls too. (`test_openapi` asks each operation alone, in every run of the tests.)"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from mortal import PROGRAMS, House

# A body can be as its schema says and still hold a job that cannot be trained.
CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422"]
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_every_check_in_every_phase(tmp_path: Path, seed: int) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    with House(tmp_path) as house:
        command = [str(PROGRAMS / "schemathesis"), "--config-file", "schemathesis.toml", "run"]
        command += [f"{house.url}/openapi.json", "-H", f"Authorization: Bearer {house.token}"]
        command += ["--checks", "all", "--max-examples", "10", "--seed", str(seed), "--no-color"]
        found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert found.returncode == 0, found.stdout[-8000:]
        assert "passed" in found.stdout
        log = (tmp_path / "api.log").read_text()
        assert "Traceback" not in log, log[-4000:]
