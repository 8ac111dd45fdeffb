"""Wheel and sdist, built and used where no clone is: `make package`."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.package

ROOT = Path(__file__).resolve().parents[1]
MOST_BYTES = 150 * 10**6  # of the slim install
JOB = """
import numpy as np
import distbp
rng = np.random.default_rng(0)
x = rng.normal(size=(400, 2)).astype(np.float32)
y = (np.hypot(x[:, 0], x[:, 1]) > 1).astype(np.int64)
job = distbp.TrainingJob(
    model={"layers": [{"type": "dense", "units": 16, "activation": "tanh"}, {"type": "dense", "units": 2}]},
    loss="softmax_cross_entropy", optimizer={"type": "adam", "learning_rate": 0.05}, epochs=20,
)
result = distbp.train(job, data={"train": (x, y), "test": (x, y)}, output="run", workers=WORKERS)
assert result.metrics["test_accuracy"] > 0.9, result.metrics
assert (distbp.load_model("run/model").predict(x) == y).mean() > 0.9
print("notes:", *result.notes)
"""


def call(*words: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Outside of the clone, with nothing of this environment."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "DISTBP"))}
    done = subprocess.run(words, cwd=folder, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist; the wheel is made from the sdist, so that it is whole."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--outdir", folder, ROOT, folder=folder)
    return folder


def environment(folder: Path, *requirements: str | Path) -> Path:
    """Its Python."""
    call(sys.executable, "-m", "venv", folder / "venv", folder=folder)
    python = folder / "venv" / "bin" / "python"
    pinned = ["-c", ROOT / "constraints.txt"]
    call(python, "-m", "pip", "install", "--quiet", *pinned, *requirements, folder=folder)
    return python


def test_what_is_in_them(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"distbp/py.typed", "distbp/__init__.py"} <= names
    assert any(name.endswith("/dashboard/index.html") for name in names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "constraints.txt", "deploy/requirements-slim.txt", "docs/job.md"} <= inside


def test_the_slim_install_trains_and_predicts(built: Path, tmp_path: Path) -> None:
    python = environment(tmp_path, "-r", ROOT / "deploy" / "requirements-slim.txt")
    (wheel,) = built.glob("*.whl")
    call(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel, folder=tmp_path)
    said = call(python, "-c", JOB.replace("WORKERS", "0"), folder=tmp_path).stdout
    assert "curves.svg needs matplotlib, which is not installed; run: pip install 'distbp[plot]'" in said
    program = tmp_path / "venv" / "bin" / "distbp"
    call(python, "-c", "import numpy; numpy.save('x.npy', numpy.zeros((3, 2), 'f4'))", folder=tmp_path)
    assert "row,prediction" in call(program, "predict", "run", "x.npy", folder=tmp_path).stdout
    call(python, "-m", "pip", "uninstall", "--quiet", "-y", "pip", folder=tmp_path)
    files = [path for path in (tmp_path / "venv").rglob("*") if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in files if "__pycache__" not in path.parts)
    assert size < MOST_BYTES, f"{size:,} bytes"


def test_the_whole_install_trains_on_workers_and_serves_beside_a_folder_named_services(
    built: Path, tmp_path: Path
) -> None:
    (wheel,) = built.glob("*.whl")
    python = environment(tmp_path, f"{wheel}[service]")
    call(python, "-c", JOB.replace("WORKERS", "2"), folder=tmp_path)
    for name in ("services", "distbp_service", "random"):  # of the user, with the names of modules
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('not this one')")
    (tmp_path / "job.yaml").write_text(
        "data: {train: {format: moons}}\nmodel: {layers: [{type: dense, units: 2}]}\n"
        "loss: softmax_cross_entropy\nepochs: 2\nworkers: 0\n"
    )
    program = tmp_path / "venv" / "bin" / "distbp"
    serve = [program, "serve", "--port", "0", "--data", tmp_path / "home"]
    config = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config")}
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(serve, cwd=tmp_path, env=config, stdout=subprocess.PIPE, stderr=log) as service,
    ):
        try:
            assert service.stdout is not None
            assert b"distbp serves at" in service.stdout.readline(), (tmp_path / "log").read_text()
            found = subprocess.run(
                [program, "submit", "job.yaml", "--wait"],
                cwd=tmp_path, env=config, capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
            assert found.returncode == 0, found.stdout + found.stderr + (tmp_path / "log").read_text()
        finally:
            service.terminate()
            service.wait(timeout=60)
