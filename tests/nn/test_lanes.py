"""Vectors of float32: no bit of a result depends on how wide they are, so processors with AVX-512 and without
it agree where the rest of their fingerprints does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_sets import HERE

pytest.importorskip("numba")
import lanes_told


@pytest.mark.heavy
@pytest.mark.skipif("numba" not in HERE, reason="nothing is compiled here")
def test_no_bit_depends_on_the_width_of_vectors(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The other width in a process of its own, since modules hold it, and with a cache of its own, which is
    kept for the next run. LLVM makes several instructions of vectors that are too wide for the processor."""
    kept: pytest.Cache | None = getattr(request.config, "cache", None)
    place = tmp_path if kept is None else kept.mkdir("lanes")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(place)}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    told = subprocess.run(
        [sys.executable, lanes_told.__file__], env=environment, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    here, other = lanes_told.told(), told.stdout.splitlines()
    assert {here[0], other[0]} == {"LANES: 8", "LANES: 16"}
    assert here[1:] == other[1:]
