"""A team's first processes, started before the job is known: used, replaced if they die, else ended."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from chaos import DATA, drive, job_of
from click.testing import CliRunner
from rigs import classes, make_job, make_rig

from distbp import train
from distbp.cli.main import group
from distbp.engine.ranges import ranges as server_ranges
from distbp.team.base import Snapshot
from distbp.team.exchange import segment
from distbp.team.maker import TeamMaker
from distbp.team.ray import session as ray_session


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DISTBP_KERNELS", "numpy")
    yield


def alone(program: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout


def ids(actors: list[Any]) -> list[str]:
    return [actor._actor_id.hex() for actor in actors]


def early(maker: TeamMaker) -> Any:
    assert maker._ray is not None
    maker._ray.wait()
    assert maker._ray.head_start is not None
    return maker._ray.head_start


def made(maker: TeamMaker, workers: int) -> Any:
    """A team of that maker, of a small job."""
    rig = make_rig(make_job(shards=4, epochs=2), classes(64))
    with closing(maker(rig.blueprint, rig.data, Snapshot(0, {"vector": rig.start()}), 1, str)) as team:
        assert team.workers == workers
        return {
            m.actor._actor_id.hex() for m in team._team._members.values()
        }, team._team._server._actor_id.hex()


def test_a_team_begins_with_the_processes_that_were_started_early(ray_here: None) -> None:
    with TeamMaker(2) as maker:
        head_start = early(maker)
        workers, (server,) = ids(head_start._workers), ids(head_start._servers)
        assert len(workers) == 2
        assert made(maker, 2) == (set(workers), server)
        assert head_start._workers == head_start._servers == []


def ended(actor: Any) -> bool:
    import ray
    from ray.exceptions import RayActorError

    try:
        ray.get(actor.__ray_ready__.remote())
    except RayActorError:
        return True
    return False


def test_those_that_no_team_took_end_with_the_session(ray_here: None) -> None:
    with TeamMaker(2) as maker:
        actors = [*early(maker)._workers, *early(maker)._servers]
    assert all(ended(actor) for actor in actors)


def test_those_that_a_team_has_no_use_for_end_when_it_is_made(ray_here: None) -> None:
    """Several servers come with a lead of their own."""
    layers = [{"type": "dense", "units": 1 << 13}, {"type": "dense", "units": 3}]
    rig = make_rig(make_job(layers, shards=4, epochs=2, servers=2), classes(64))
    assert len(server_ranges(rig.blueprint.network(), 2)) == 2
    with TeamMaker(1) as maker:
        server = early(maker)._servers[0]
        start = Snapshot(0, {"vector": rig.start()})
        with closing(maker(rig.blueprint, rig.data, start, 1, str)):
            assert ended(server)


@pytest.mark.parametrize("lost", ["_workers", "_servers"])
def test_one_that_is_dead_before_the_team_is_made(ray_here: None, tmp_path: Path, lost: str) -> None:
    """A worker is replaced; with the server the attempt is lost, and the next one has a new server."""
    import ray

    def make(*arguments: Any) -> Any:
        for actor in list(getattr(early(maker), lost)):
            ray.kill(actor)
        return maker(*arguments)

    with TeamMaker(2) as maker:
        found = drive(tmp_path / "disturbed", job_of(0), make)
    expected = train(job_of(0), data=DATA, output=tmp_path / "inline", workers=0)
    assert found.params_sha256 == expected.params_sha256


def test_the_command_connects_before_it_reads_the_job(
    ray_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    seen: list[str] = []

    class Session(ray_session.RaySession):
        def __init__(self, *arguments: Any) -> None:
            seen.append("connected")
            super().__init__(*arguments)

    monkeypatch.setattr(ray_session, "RaySession", Session)
    monkeypatch.setattr("distbp.cli.main.job_at", lambda *_, **__: seen.append("read") or job_of(0))
    address = ray.get_runtime_context().gcs_address
    (tmp_path / "job.yaml").write_text("name: missing\n")
    done = CliRunner().invoke(
        group, ["train", str(tmp_path / "job.yaml"), "--workers", "2", "--address", address]
    )
    assert seen == ["connected", "read"], done.output


@pytest.mark.parametrize(
    ("workers", "address"), [(None, "127.0.0.1:1"), ("auto", "127.0.0.1:1"), (0, "127.0.0.1:1"), (2, None)]
)
def test_nothing_is_joined_early_where_it_may_not_be_needed(
    monkeypatch: pytest.MonkeyPatch, workers: int | str | None, address: str | None
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert isinstance(ray_session.join_early(workers, address), nullcontext)


def test_the_address_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(ray_session, "RaySession", lambda *arguments: pytest.fail(str(arguments)))
    with pytest.raises(pytest.fail.Exception, match=r"\(3, '10\.0\.0\.1:6379', 3\)"):
        ray_session.join_early(3, None)


def test_processes_are_asked_for_before_anything_heavy_is_loaded() -> None:
    program = """
import sys
import distbp.team.ray.head_start
print(sorted({"numpy", "numba", "pydantic", "distbp.nn", "distbp.job"} & set(sys.modules)))
"""
    assert alone(program).strip() == "[]"


def test_a_worker_loads_no_package_that_ray_alone_imports(ray_here: None) -> None:
    import ray

    @ray.remote(num_cpus=1)
    class Looking:
        def loaded(self) -> dict[str, str]:
            return {name: type(module).__name__ for name, module in sys.modules.items()}

        def version_of(self, name: str) -> Any:
            return importlib.import_module(name).__version__

    actor = Looking.remote()
    ray.get(actor.loaded.remote())  # after its first answer
    loaded = ray.get(actor.loaded.remote())
    assert {"pydantic", "pyarrow", "starlette", "urllib3", "referencing"}.isdisjoint(loaded)
    assert (loaded["requests"], loaded["jsonschema"]) == ("_Later", "_Later")
    assert ray.get(actor.version_of.remote("requests")) == metadata.version("requests")
    assert ray.get(actor.loaded.remote())["requests"] == "module"
    ray.kill(actor)


FACTS = """
network = blueprint.network()
facts = network.size, blueprint.total_steps, blueprint.sharding(), blueprint.decays(network)
print(*facts, blueprint.update_rule(), [one.name for one in blueprint.measures(network).metrics])
"""


def test_processes_that_compute_need_not_know_how_a_job_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    job = make_job(shards=4, epochs=2, clip={"norm": 1.0}, optimizer="adam", metrics=["accuracy"])
    blueprint = make_rig(job, classes(64)).blueprint
    begin = "import pickle, sys\nblueprint = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
    end = "print([name for name in sys.modules if name.split('.')[:2] == ['distbp', 'job']])"
    first, second = alone(begin + FACTS + end, pickle.dumps(blueprint.slim()).hex()).splitlines()
    exec(FACTS, {"blueprint": blueprint})
    assert first == capsys.readouterr().out.strip()
    assert second == "[]"
    assert set(vars(blueprint.slim().job)) == set(type(job).model_fields) - {"data"}
    assert replace(blueprint.slim(), job=job) == blueprint


def test_all_workers_of_a_node_can_wait_for_their_rows(ray_here: None) -> None:
    from distbp.team.ray.actors import ROW_CALLS

    assert ROW_CALLS == segment.MAX_WORKERS
