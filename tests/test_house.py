"""The house: imports go one way, and each heavy dependency has its own door.

The table of rooms is the table in docs/architecture.md, read from there, so the page cannot go stale.
"""

from __future__ import annotations

import ast
import fnmatch
import functools
import graphlib
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "distbp"
SERVICE = ROOT / "services" / "distbp_service"
FILES = {
    ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for package in (PACKAGE, SERVICE)
    for path in sorted(package.rglob("*.py"))
}

# Which files may import what of the libraries that are not everywhere.
DOORS = {
    "ray": {
        "distbp.team.ray.apart",
        "distbp.team.ray.ray_team",
        "distbp.team.ray.actors",
        "distbp.team.ray.range_actors",
        "distbp.team.ray.heartbeats",
        "distbp.team.ray.recruiting",
        "distbp.team.ray.head_start",
        "distbp.team.ray.session",
        "distbp.team.ray.worker_pool",
        "distbp.team.ray.relay_actor",
        "distbp.team.ray.ray_objects",
        "distbp.team.ray.lean_ray",
        "distbp.team.ray.nodes",
        "distbp_service.launchers.ray_jobs",
    },
    "numba": {
        "distbp.machine.dot",
        "distbp.machine.gemm",
        "distbp.machine.jit",
        "distbp.machine.lean_numba",
        "distbp.nn.ops.loops_elements",
        "distbp.nn.ops.rows",
        "distbp.machine.pointers",
        "distbp.machine.scalars",
        "distbp.machine.structures",
        "distbp.machine.window_picks",
        "distbp.machine.window_sums",
        "distbp.machine.own_products.direct",
        "distbp.machine.own_products.tile_product",
        "distbp.machine.own_products.strips",
        "distbp.machine.own_products.tiles",
        "distbp.machine.vector_math",
        "distbp.machine.vectors",
        "distbp.machine.own_products.vector_product",
    },
    "llvmlite": {
        "distbp.machine.dot",
        "distbp.machine.gemm",
        "distbp.machine.lanes",
        "distbp.machine.window_picks",
        "distbp.nn.ops.loops_elements",
        "distbp.nn.ops.rows",
        "distbp.machine.pointers",
        "distbp.machine.scalars",
        "distbp.machine.structures",
        "distbp.machine.vectors",
        "distbp.machine.window_sums",
        "distbp.machine.own_products.strips",
        "distbp.machine.own_products.tiles",
    },
    "sklearn": {"distbp.data.formats.digits", "distbp.sklearn"},
    "matplotlib": {"distbp.run.curves"},
    "pyarrow": {"distbp.data.columns.arrow"},
    "pydantic": {"distbp.job", "distbp.model", "distbp.cli.data", "distbp_service.api"},
    "yaml": {"distbp.job.text"},
    "click": {
        "distbp.cli.main",
        "distbp.cli.assets",
        "distbp.cli.checks",
        "distbp.cli.describe",
        "distbp.cli.errors",
        "distbp.cli.explain",
        "distbp.cli.options",
        "distbp.cli.paths",
        "distbp.cli.serve",
        "distbp.cli.service",
        "distbp.cli.tables",
        "distbp.cli.tokens",
        "distbp.cli.tools",
    },
    "rich": {"distbp.cli.main", "distbp.run.live"},
    "httpx": {
        "distbp.client.transport",
        "distbp_service.runner",
        "distbp_service.serve",
        "distbp_service.transport",
    },
    "fastapi": {"distbp_service.api"},
    "starlette": {"distbp_service.api"},
    "uvicorn": {"distbp_service.serve"},
    "prometheus_client": {"distbp_service.api.telemetry"},
    "distbp_service": {"distbp.cli.serve", "distbp_service"},
}
# What the mathematics may import besides the standard library.
MATHEMATICS = {
    "numpy",
    "numba",
    "llvmlite",
    "distbp.nn",
    "distbp.machine",
    "distbp.core.arrays",
    "distbp.core.imports",
    "distbp.core.metric_names",
    "distbp.core.options",
    "distbp.core.streams",
    "distbp.core.words",
    "distbp.core.errors",
}
# Who imports one of these has compiled functions.
JIT = {"distbp.machine.jit", "distbp.machine.vector_math"}
# Past 300 lines a file is asked whether it is two things. These were asked, and said no.
LONG = {
    "distbp.core.settings",
    "distbp.cli.main",
    "distbp.team.ray.ray_team",
    "distbp.job.checks",
    "distbp.job.faults",
    "distbp.nn.metrics",
    "distbp.model.folder",
    "distbp.optim.parts",
    "distbp.run.trainer",
    "distbp.run.run_directory",
    "distbp_service.api.schemas",
    "distbp_service.serve",
}
LONGEST = 400


class Import(NamedTuple):
    target: str  # a module of this package where there is one, else the name as it is written
    line: int


@functools.cache
def tree(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text("utf-8"))


@functools.cache
def imports(name: str) -> tuple[Import, ...]:
    """What a file imports when it runs; imports for type checking alone do not count."""
    return tuple(_imports(tree(name)))


def _imports(node: ast.AST) -> Iterator[Import]:
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        for child in node.orelse:
            yield from _imports(child)
        return
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, node.lineno) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: write imports in full"
        assert node.module is not None
        for alias in node.names:
            module = f"{node.module}.{alias.name}"
            yield Import(module if module in FILES else node.module, node.lineno)
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):
            yield from _imports(child)


def rooms(title: str, package: str) -> list[str]:
    """The rooms from top to bottom: first cells of the table under a title of the page."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    section = re.split(r"^## ", page.split(f"## {title}\n", 1)[1], flags=re.MULTILINE)[0]
    found = re.findall(r"^\| `([a-z_]+?)(?:\.py|/)` \|", section, re.MULTILINE)
    return [f"{package}.{room}" for room in found]


# The service stands below all of distbp, but for the command that starts it.
ROOMS = [*rooms("The rooms", "distbp"), *rooms("The rooms of the service", "distbp_service")]


def room_of(module: str) -> int | None:
    """The number of a module's room, from the top; None for the packages themselves."""
    if module in ("distbp", "distbp_service"):
        return None
    room = ".".join(module.split(".")[:2])
    return ROOMS.index(room) if room in ROOMS else -1


def within(module: str, *places: str) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def test_every_file_has_a_room() -> None:
    homeless = [name for name in FILES if room_of(name) == -1]
    assert not homeless, f"give these a row in the table of docs/architecture.md: {homeless}"


def test_every_room_has_files() -> None:
    empty = [room for room in ROOMS if not any(within(name, room) for name in FILES)]
    assert not empty, f"the table of docs/architecture.md names rooms that do not exist: {empty}"
    assert len(ROOMS) == len(set(ROOMS))


def test_imports_come_from_rooms_above() -> None:
    for name, target, line in [(file, *found) for file in FILES for found in imports(file)]:
        own = room_of(name)
        if not within(target, "distbp", "distbp_service") or target == "distbp" or name == "distbp.cli.serve":
            continue
        assert own is not None, f"{name} imports nothing at import time, but line {line} does"
        there = room_of(target)
        assert there is not None and there <= own, f"{name}, line {line}: {target} is in a room below"


@pytest.mark.parametrize("package", [name for name, path in FILES.items() if path.stem == "__init__"])
def test_no_circles(package: str) -> None:
    """A package's files and sub-packages, each sub-package as one, import one another in one order."""

    def part(module: str) -> str:
        return ".".join(module.split(".")[: package.count(".") + 2])

    graph: dict[str, set[str]] = {}
    for name in FILES:
        targets = {i.target for i in imports(name)} & set(FILES) - {"distbp", "distbp_service"}
        if within(name, package):
            found = {part(target) for target in targets if within(target, package)}
            graph.setdefault(part(name), set()).update(found - {part(name)})
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("library", DOORS)
def test_doors(library: str) -> None:
    for name in FILES:
        for target, line in imports(name):
            if within(target, library):
                assert within(name, *DOORS[library]), f"{name}, line {line} imports {library}"


def test_compiled_code_is_made_anew_when_what_is_in_it_changes() -> None:
    """Modules with compiled functions, and those that such functions have constants from, are `SOURCES`."""
    pytest.importorskip("numba")
    from distbp.machine.jit import SOURCES

    sources = set()
    for pattern in SOURCES:
        found = set(fnmatch.filter(FILES, f"distbp.{pattern}"))
        assert found, f"{pattern} names no file"
        sources |= found
    compiling = {name for name in FILES if any(i.target in JIT for i in imports(name))}
    assert compiling <= sources
    for name in compiling:
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.ImportFrom) and node.module and within(node.module, "distbp"):
                for alias in node.names:
                    module = f"{node.module}.{alias.name}"
                    if module in FILES:
                        assert module in sources, f"{name} uses {module}"
                    elif alias.name.isupper():
                        assert node.module in sources, f"{name} uses {alias.name}"


def test_mathematics_needs_numpy_only() -> None:
    standard = set(sys.stdlib_module_names)
    for name in FILES:
        if within(name, "distbp.nn", "distbp.machine"):
            for target, line in imports(name):
                top = target.split(".")[0]
                assert top in standard or within(target, *MATHEMATICS), f"{name}, line {line}: {target}"


def test_only_settings_reads_the_environment() -> None:
    for name in FILES:
        if name == "distbp.core.settings":
            continue
        written = {
            id(target.value)
            for node in ast.walk(tree(name))
            if isinstance(node, ast.Assign | ast.Delete)
            for target in node.targets
            if isinstance(target, ast.Subscript)
        } | {
            id(node.func.value)
            for node in ast.walk(tree(name))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "update"
        }
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv"):
                assert id(node) in written, f"{name}, line {node.lineno} reads the environment; use settings"
            if isinstance(node, ast.ImportFrom) and node.module == "os":
                names = {alias.name for alias in node.names}
                assert not names & {"environ", "getenv"}, f"{name}, line {node.lineno}"


def test_files_are_small() -> None:
    for name, path in FILES.items():
        lines = len(path.read_text("utf-8").splitlines())
        limit = LONGEST if name in LONG else 300
        assert lines <= limit, (
            f"{name}: {lines} lines: is it two things? If not, add it to LONG (at most {LONGEST})"
        )


def test_zip_is_strict() -> None:
    for name in FILES:
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "zip":
                said = any(keyword.arg == "strict" for keyword in node.keywords)
                assert said, f"{name}, line {node.lineno}: zip without strict="


def test_importing_distbp_is_light() -> None:
    """Neither `import distbp` nor reading a job loads Ray, PyTorch, matplotlib or scikit-learn."""
    code = (
        "import sys, distbp; from distbp import TrainingJob, train; "
        "print(*{'ray', 'torch', 'jax', 'tensorflow', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# The picture -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def draw() -> Callable[[Path], str]:
    found: Callable[[Path], str] = runpy.run_path(str(ROOT / "tools" / "draw_house.py"))["draw"]
    return found


def test_the_picture_of_the_house_is_current(draw: Callable[[Path], str]) -> None:
    picture = (ROOT / "docs" / "images" / "house.svg").read_text("utf-8")
    assert picture == draw(PACKAGE), "run: python tools/draw_house.py > docs/images/house.svg"


def boxes(svg: str) -> dict[str, tuple[int, str]]:
    """Name of a room -> the height at which its name stands, and its size in words."""
    found = re.findall(r'class="name" x="[\d.]+" y="(\d+)">([^<]+)</text>.*class="size"[^>]*>([^<]+)<', svg)
    return {name: (int(height), size) for height, name, size in found}


def test_a_house_is_drawn_floor_by_floor(draw: Callable[[Path], str], tmp_path: Path) -> None:
    house = {
        "__init__.py": "from house import cli",
        "core/__init__.py": "",
        "core/errors.py": "class E(Exception):\n    pass\n",
        "nn/__init__.py": "",
        "nn/tape.py": "import house.core.errors\nfrom house.nn import ops\n",
        "nn/ops.py": "from house.core import errors\nX = 1\n",
        "job.py": "if TYPE_CHECKING:\n    import house.cli\nimport house.core.errors\n",
        "cli/__init__.py": "",
        "cli/main.py": "def main():\n    from house import job, nn\n    from house.core import errors\n",
    }
    for name, text in house.items():
        path = tmp_path / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    svg = draw(tmp_path / "house")
    found = boxes(svg)
    assert {name: size for name, (_, size) in found.items()} == {
        "core/": "1 file, 2 lines",
        "nn/": "2 files, 4 lines",
        "job.py": "3 lines",
        "cli/": "1 file, 3 lines",
    }
    assert found["core/"][0] < found["nn/"][0] == found["job.py"][0] < found["cli/"][0]
    assert svg.count('class="arrow"') == 4, "from the command line to core is two steps, and drawn as two"
    assert svg == draw(tmp_path / "house")
    (tmp_path / "house" / "core" / "errors.py").write_text("import house.cli.main\n\n")
    with pytest.raises(graphlib.CycleError):
        draw(tmp_path / "house")
