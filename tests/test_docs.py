"""Docs that fail the build: what a user can name is documented, examples run, links resolve."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import pytest
from forked import Forks
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import distbp
from distbp.cli.errors import EXIT_CODES
from distbp.cli.main import group
from distbp.core import errors
from distbp.core.settings import SETTINGS, Setting
from distbp.job import TrainingJob
from distbp.nn.initializers import INITIALIZERS
from distbp.run import events
from tools.learn_pictures import PICTURES

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
API = (ROOT / "docs" / "api.md").read_text("utf-8")
CLI = (ROOT / "docs" / "cli.md").read_text("utf-8")
JOBS = sorted((ROOT / "examples").glob("*.yaml"))


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def section(text: str, title: str) -> str:
    """From a heading of any level to the next one of the same or a higher level."""
    found = re.search(rf"^(#+) {re.escape(title)}$\n(.*?)(?=^#{{1,2}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no section {title!r}"
    return found[2]


# Everything has its line -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(group.commands))
def test_commands_and_options(name: str) -> None:
    text = section(CLI, name)
    for parameter in group.commands[name].params:
        if isinstance(parameter, click.Option):
            for option in (*parameter.opts, *parameter.secondary_opts):
                assert f"{option} " in text or f"{option}]" in text or f"{option}`" in text, option


def test_no_section_for_what_is_gone() -> None:
    titles = set(re.findall(r"^## (\w+)$", CLI, re.MULTILINE))
    assert titles == set(group.commands)


def test_exit_codes() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", section(CLI, "Exit codes"), re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == EXIT_CODES


def test_public_names() -> None:
    for name in distbp.__all__:
        assert f"| `{name}` |" in API, name
        assert getattr(distbp, name) is not None


@pytest.mark.parametrize(
    "function", [distbp.train, distbp.resume, distbp.submit, distbp.connect], ids=lambda f: f.__name__
)
def test_signatures(function: Callable[..., object]) -> None:
    row = next(line for line in API.splitlines() if line.startswith(f"| `{function.__name__}` |"))
    for name in inspect.signature(function).parameters:
        assert re.search(rf"\b{name}\b", row), name


def all_errors() -> list[type[BaseException]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", all_errors())
def test_errors(kind: type[BaseException]) -> None:
    assert f"| `{kind.__name__}` |" in API
    assert kind.__name__ in (errors.__doc__ or ""), "draw it into the tree at the top of errors.py"


def test_events() -> None:
    for kind in events.Event.__args__:
        assert f"`{kind.__name__}`" in section(API, "Listening")


def default_text(setting: Setting) -> str:
    value: Any = setting.default
    if setting.unit != "bytes":
        return str(value)
    power = max(p for p in (0, 10, 20, 30, 40) if value % 2**p == 0)
    return f"{value >> power}{ {0: '', 10: 'KiB', 20: 'MiB', 30: 'GiB', 40: 'TiB'}[power] }"


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=list(SETTINGS))
def test_settings(setting: Setting) -> None:
    default = f"`{default_text(setting)}`" if setting.default != "" else ""
    row = f"| `{setting.name}` | {default} | {setting.about} |"
    assert row in section(API, "Settings"), f"docs/api.md needs the row\n{row}"


def test_settings_that_are_gone() -> None:
    assert set(re.findall(r"^\| `([A-Z_]+)` \|", section(API, "Settings"), re.MULTILINE)) == set(SETTINGS)


def test_reference_of_the_job_is_current() -> None:
    from distbp.job.reference import reference

    page = (ROOT / "docs" / "job.md").read_text("utf-8")
    assert page == reference(), "run: python -m distbp.job.reference > docs/job.md"


def test_verbs_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    verbs = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    for page in PAGES:
        for verb in re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE):
            assert "".join(verb) in verbs, f"{page_name(page)}: make {''.join(verb)}"


def test_verbs_keep_what_python_compiles() -> None:
    """Their tests start hundreds of interpreters."""
    show = 'show: ; @echo "<$$PYTHONDONTWRITEBYTECODE>"'
    done = subprocess.run(
        ["make", "--no-print-directory", "--eval", show, "show"],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "<>"


def test_versions_agree() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert f'version = "{distbp.__version__}"' in project


# Examples run ------------------------------------------------------------------------------------------


@pytest.mark.heavy
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=page_name)
def test_python_blocks_run(page: Path, forks: Forks, tmp_path: Path) -> None:
    """Runs each from a folder beside examples/. What a comment says that a line prints is printed, and the
    page shows what a block printed that prints digests."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for block in blocks(page, "python"):
        # Modules are there already that a block does not import.
        assert set(re.findall(r"\bdistbp\.([a-z]\w*)(?!.* import )", block)) <= set(distbp.__all__), block
        if "distbp.submit(" in block:  # needs a service: run by tests/services/test_serve.py
            continue
        done = forks.run("-c", block, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        for shown in re.findall(r"^print\(.*\)  # ([\[\d].*)$", block, re.MULTILINE):
            assert shown in done.stdout.splitlines()
        if "params_sha256" in block:
            for text in (done.stdout, *blocks(page, "text")):
                found = re.findall(r"^(\d+) ([0-9a-f]{64})$", text, re.MULTILINE)
                assert [workers for workers, _ in found] == ["0", "1", "2"]
                assert len({digest for _, digest in found}) == 1


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "console")], ids=page_name)
def test_console_blocks_run(page: Path, forks: Forks, tmp_path: Path) -> None:
    """Lines after `$` are commands of distbp, run one after another from a folder beside examples/."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for block in blocks(page, "console"):
        for line in re.findall(r"^\$ (.+)$", block, re.MULTILINE):
            if line == "distbp reproduce mazur":  # run by tests/test_reproduce.py
                continue
            # All of these steps are trained by tests/test_explain.py.
            program, *words = line.replace("--step 10000", "--step 100").split()
            assert program == "distbp", line
            done = forks.run("-m", "distbp.cli.main", *words, cwd=tmp_path)
            assert done.returncode == 0, f"{line}\n{done.stderr}"


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "yaml")], ids=page_name)
def test_yaml_blocks_are_jobs(page: Path) -> None:
    for block in blocks(page, "yaml"):
        TrainingJob.from_yaml(block)


def test_readme_shows_the_example() -> None:
    shown = TrainingJob.from_yaml(blocks(ROOT / "README.md", "yaml")[0])
    assert shown == TrainingJob.from_file(ROOT / "examples" / "digits.yaml")


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_example_jobs_are_good(path: Path) -> None:
    job = TrainingJob.from_file(path)
    assert job.name == path.stem.replace("_", "-")
    assert job.data.train is not None


# What is quoted is there -------------------------------------------------------------------------------


def test_code_that_learn_quotes_is_in_the_engine() -> None:
    page = (ROOT / "docs" / "learn.md").read_text("utf-8")
    quoted = re.findall(r"^\| \d\. [^|]+\|[^|]+\| `(.+)` \|$", page, re.MULTILINE)
    assert len(quoted) == 4
    engine = "\n".join(path.read_text("utf-8") for path in (ROOT / "distbp" / "nn").rglob("*.py"))
    for code in quoted:
        assert code in engine, code


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_initializers_that_are_named_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    names = re.findall(r"`((?:glorot|he|lecun|xavier|kaiming)(?:_\w+)?)`", text)
    names += re.findall(r"initializer: (\w+)", text)
    assert set(names) <= set(INITIALIZERS), page_name(page)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_learn_are_current(name: str) -> None:
    picture = (ROOT / "docs" / "images" / f"{name}.svg").read_text("utf-8")
    assert picture == PICTURES[name](), "run: python -m tools.learn_pictures"
    assert f"](images/{name}.svg)" in (ROOT / "docs" / "learn.md").read_text("utf-8")


def test_files_that_learn_says_to_read_are_there() -> None:
    reading = section((ROOT / "docs" / "learn.md").read_text("utf-8"), "Reading the code")
    files = re.findall(r"`([\w/]+\.py)`", reading)
    assert len(files) > 5
    assert [name for name in files if not (ROOT / "distbp" / name).exists()] == []


def test_training_from_python_shows_nothing_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "`train` and `resume` show nothing by themselves." in section(API, "Listening")
    job = TrainingJob(
        data={"train": {"format": "blobs", "samples": 64}},
        model={"layers": [{"type": "dense", "units": 3}]},
        loss="softmax_cross_entropy",
        epochs=1,
        workers=0,
    )
    distbp.train(job, output=tmp_path / "run")
    distbp.resume(tmp_path / "run")
    assert capsys.readouterr() == ("", "")


# Links resolve -----------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Git hosts make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path) if path else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_files_that_are_named_exist(page: Path) -> None:
    """Paths such as `distbp/nn/layers/base.py` and `examples/digits.yaml` in running text."""
    for name in re.findall(
        r"`((?:distbp|services|tests|docs|examples|benchmarks|tools)/[\w/.]+)`", page.read_text("utf-8")
    ):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`([\w/]+/\w+\.py)`", page.read_text("utf-8")):  # within a package
        bases = (ROOT, ROOT / "distbp", ROOT / "services" / "distbp_service")
        assert any((base / name).exists() for base in bases), name


# What is installed -------------------------------------------------------------------------------------


def needed() -> Iterator[Requirement]:
    """What pyproject.toml asks for, the extras too, and what those need in turn, where it is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    waiting = [Requirement(text) for texts in lists for text in texts]
    seen = {"distbp"}
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        yield requirement
        try:
            more = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of an extra that is not installed here
            continue
        waiting += [Requirement(text) for text in more]


def test_everything_that_is_installed_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = {canonicalize_name(line.split("==")[0]): line for line in lines if not line.startswith("#")}
    missing = sorted(
        {requirement.name for requirement in needed() if canonicalize_name(requirement.name) not in pins}
    )
    assert not missing, f"constraints.txt needs the versions of {missing}"
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pins.values()), "plain versions only"


def test_no_deep_learning_library_is_needed() -> None:
    """PyTorch, JAX and TensorFlow are peers in benchmarks/, never a dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for extra, texts in {"": project["dependencies"], **project["optional-dependencies"]}.items():
        if extra != "bench":
            names = {canonicalize_name(Requirement(text).name) for text in texts}
            assert not names & {"torch", "jax", "jaxlib", "tensorflow", "keras"}, extra
