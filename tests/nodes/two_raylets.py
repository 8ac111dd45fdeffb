"""A team over two nodes that are two raylets of this machine, driven from a third without CPUs.

A program of its own, for Ray reads its settings when it is imported. Prints what it found, as JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from rigs import Rig, classes, make_job, make_rig

import distbp
from distbp.core import settings
from distbp.core.errors import ServerLostError
from distbp.engine import numerics
from distbp.optim.schedules import PlateauState
from distbp.run.run_directory import read_lines
from distbp.team.base import Snapshot
from distbp.team.exchange.shared_data import share_rows
from distbp.team.inline import InlineTeam
from distbp.team.ray.session import RaySession

SHARDS, STEPS, MORE = 8, 40, 20
STORE_BYTES = 100 * 2**20


def rig() -> Rig:
    layers = [
        {"type": "dense", "units": 250, "activation": "relu"},
        {"type": "batch_normalization"},
        {"type": "dense", "units": 250, "activation": "tanh"},  # two pieces of the vector
        {"type": "dropout", "rate": 0.3},
        {"type": "dense", "units": 3},
    ]
    fields = {"optimizer": {"type": "adam"}, "clip": {"norm": 0.5}, "batch_size": 40}
    job = make_job(layers, shards=SHARDS, max_steps=STEPS + MORE, **fields)
    return make_rig(job, classes(200, weighted=True), {"validation": classes(37, seed=1)})


def with_ids() -> Rig:
    """A job most of whose parameters are a table, of which a step names few rows."""
    layers = [
        {"type": "embedding", "entries": 5_000, "size": 9},  # the cut between two servers goes through a row
        {"type": "average_steps"},
        {"type": "dense", "units": 3},
    ]
    job = make_job(layers, shards=SHARDS, max_steps=STEPS, optimizer={"type": "adam"}, batch_size=40)
    ids = np.random.default_rng(6).integers(0, 5_000, (237, 6))
    labels = ids[:, 0] % 3
    return make_rig(job, (ids[:200], labels[:200]), {"validation": (ids[200:], labels[200:])})


def facts(team: Any) -> dict[str, Any]:
    vector = team.snapshot().arrays["vector"]
    evaluation = team.evaluate("validation").sums
    return {"vector": hashlib.sha256(vector.tobytes()).hexdigest(), "validation": evaluation.tolist()}


def main(folder: Path) -> None:
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    environment["RAY_USAGE_STATS_ENABLED"] = environment["RAY_worker_niceness"] = "0"
    environment["RAY_prestart_worker_first_driver"] = "0"  # no processes that wait for work
    made = rig()
    start = made.start()
    found: dict[str, Any] = {"size": start.nbytes}
    with numerics.one_blas_thread(), settings.environment(environment):
        inline = InlineTeam(made.blueprint, made.data, Snapshot(0, {"vector": start.copy()}))
        inline.run(0, STEPS, PlateauState(), lambda: False)
        found["expected"] = [facts(inline)]
        inline.run(STEPS, STEPS + MORE, PlateauState(), lambda: False)
        found["expected"].append(facts(inline))

        from ray.cluster_utils import Cluster

        cluster = Cluster()
        try:
            nodes = [
                cluster.add_node(num_cpus=cpus, object_store_memory=STORE_BYTES, include_dashboard=False)
                for cpus in (0, 2, 2)
            ]
            session = RaySession(1, cluster.address)
            with closing(session):
                session.wait()
                shared = {name: share_rows(split) for name, split in made.data.splits.items()}
                handles = {name: rows for name, (_, rows) in shared.items()}
                try:
                    for servers, key in ((1, "one server"), (2, "two servers")):
                        found[key] = train(made, Snapshot(0, {"vector": start.copy()}), handles, servers)
                    found["refused"] = refused(folder, session)
                    found["apart"] = apart(folder, session)
                    found["ids"] = train_ids()
                    cluster.remove_node(nodes[-1])
                    found["loss of a home"] = begin_at(
                        nodes[-1].node_id, made, Snapshot(0, {"vector": start.copy()}), handles
                    )
                finally:
                    for memory, _ in shared.values():
                        memory.close()
        finally:
            cluster.shutdown()
    print(json.dumps(found))


def train(made: Rig, start: Snapshot, handles: Any, servers: int) -> dict[str, Any]:
    import ray

    from distbp.team.membership import Options
    from distbp.team.ray.ray_team import RayTeam

    notes: list[str] = []
    options = Options(4 if servers == 1 else 2, servers=servers)
    team = RayTeam(made.blueprint, made.data, start, 1, options, handles, notes.append)
    try:
        found: dict[str, Any] = {"exchange": team.exchange, "workers": team.workers}
        team.run(0, STEPS, PlateauState(), lambda: False)
        found["measured"] = [facts(team)]
        found["traffic"] = list(team.nodes.traffic().values())
        places = {node["NodeID"]: node["Resources"].get("CPU", 0) for node in ray.nodes()}
        found["cpus"] = {name: places[place.node] for name, place in team.places().items()}
        here = ray.get_runtime_context().get_node_id()
        found["sent"] = sorted(sorted(node.sent) for name, node in team.nodes.items() if name != here)
        if servers == 1:
            team.scale(2)  # the last to come goes first: the other node is left
        team.run(STEPS, STEPS + MORE, PlateauState(), lambda: False)
        found["measured"].append(facts(team))
        found["at the end"] = [team.exchange, team.workers]
        found["notes"] = notes
        found["ledger"] = team.ledger()
        if servers > 1:
            _, (second, _, _) = team.nodes.servers
            os.kill(ray.get(second.place.remote()).pid, signal.SIGKILL)
            try:  # as the trainer does when it loses workers; the first server may still answer
                team._ask(team._server.place.remote(), options.frozen_s)
            except ServerLostError as error:
                found["loss when asked"] = str(error)
            try:
                team.run(STEPS + MORE, 10**6, PlateauState(), lambda: False)
            except ServerLostError as error:
                found["loss"] = str(error)
    finally:
        team.close()
    return found


def apart(folder: Path, session: RaySession) -> dict[str, Any]:
    """Networks that train side by side. Neither node is the trainer's, so the rows are sent to both."""
    from distbp.team.ray import worker_pool

    sent: list[str] = []
    nodes: list[str] = []
    met = threading.Barrier(4)  # else a worker may have a second network before the last worker is there

    class Seen(worker_pool.WorkerPool):
        def rows_for(self, worker: worker_pool.LentWorker) -> Any:
            rows = super().rows_for(worker)
            sent.append(rows.hex())
            nodes.append(worker.place.node)
            met.wait(120)
            return rows

    worker_pool.WorkerPool = Seen  # type: ignore[misc]
    layers = [{"type": "dense", "units": 7, "activation": "tanh"}, {"type": "dense", "units": 3}]
    job = make_job(layers, batch_size=16, epochs=2, members=4, data={"standardize": True})
    data = {"train": classes(70, weighted=True), "validation": classes(33, seed=1)}
    # Rows are prepared batch by batch, so they travel as they are.
    with settings.environment({"DISTBP_KERNELS": "numpy", "DISTBP_PREPARE_BYTES": "1"}):
        alone = distbp.train(job, data=data, output=folder / "alone")
        shared = distbp.train(job, data=data, output=folder / "shared", workers=4, session=session)
    return {
        "digests": [alone.params_sha256, shared.params_sha256],
        "metrics": [alone.metrics, shared.metrics],
        "objects": len(set(sent)),
        "nodes": sorted(map(nodes.count, set(nodes))),
    }


def refused(folder: Path, session: RaySession) -> dict[str, Any]:
    """Networks that train side by side, where the first worker would compute other bits."""
    from distbp.team.ray import apart, head_start
    from distbp.team.ray.actors import WorkerProcess

    nodes: list[str] = []
    worker, other = head_start.worker, iter([{"env_vars": {"OPENBLAS_CORETYPE": "Nehalem"}}])

    class Seen(apart.ApartTeam):
        def _begin(self, snapshot: Snapshot) -> None:
            super()._begin(snapshot)
            assert self.worker is not None
            nodes.append(self.worker.place.node)

    def new_worker(early: Any, where: Any, kernels: str, cpus: int) -> Any:
        environment = next(other, None)
        if environment is None:
            return worker(None, where, kernels, cpus)
        return WorkerProcess.options(scheduling_strategy=where, runtime_env=environment).remote(kernels)

    job, output = make_job(epochs=1, members=3), folder / "refused"
    with (
        patch.object(apart, "ApartTeam", Seen),
        patch.object(head_start, "worker", new_worker),
        settings.environment({"DISTBP_KERNELS": "numpy"}),
    ):
        distbp.train(job, data=classes(40), output=output, workers=1, session=session)
    told = [line.get("reason", "") for line in read_lines(output / "events.jsonl")]
    return {"told": [reason for reason in told if "is refused" in reason], "nodes": nodes}


def train_ids() -> dict[str, Any]:
    """What teams of 0 to 3 workers make of the job with a table, and two servers with 3 workers."""
    from distbp.team.membership import Options
    from distbp.team.ray.ray_team import RayTeam

    made = with_ids()
    start = made.start()
    found: dict[str, Any] = {"size": start.nbytes, "measured": {}, "traffic": {}}
    fresh = Snapshot(0, {"vector": start})
    inline = InlineTeam(made.blueprint, made.data, Snapshot(0, {"vector": start.copy()}))
    inline.run(0, STEPS, PlateauState(), lambda: False)
    found["measured"]["0 workers"] = facts(inline)
    inline.close()
    shared = {name: share_rows(split) for name, split in made.data.splits.items()}
    handles = {name: rows for name, (_, rows) in shared.items()}
    try:
        for workers, servers in ((1, 1), (2, 1), (3, 1), (3, 2)):
            name = f"{workers} workers, {servers} servers"
            with closing(
                RayTeam(
                    made.blueprint, made.data, fresh, 1, Options(workers, servers=servers), handles, print
                )
            ) as team:
                team.run(0, STEPS, PlateauState(), lambda: False)
                found["measured"][name] = facts(team)
                found["traffic"][name] = [sent for _, sent in team.nodes.traffic().values()]
    finally:
        for memory, _ in shared.values():
            memory.close()
    return found


def begin_at(home: str, made: Rig, start: Snapshot, handles: Any) -> str:
    """How a team fails whose server's node leaves between the choice of it and the server's start."""
    from distbp.team.membership import Options
    from distbp.team.ray import ray_team as cluster

    cluster.home_of = lambda here: home
    try:
        cluster.RayTeam(made.blueprint, made.data, start, 1, Options(1), handles, print).close()
    except ServerLostError as error:
        return str(error)
    return "none"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
