"""Ray Train's TorchTrainer: two CPU workers, one thread and one core each, the same DDP loop inside."""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.common import Measure, fix_threads, main_session
from benchmarks.peers.pipes import measuring, pipes_folder
from benchmarks.rows import ROWS, Row

WORKERS = 2


def worker_main(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    import torch
    from ray import train
    from ray.train.torch import prepare_model

    from benchmarks.peers import ddp_loop, torch_net

    rank = train.get_context().get_world_rank()
    fix_threads([config["cores"][rank % len(config["cores"])]], 1)
    torch.set_num_threads(1)
    row = ROWS[config["row"]]
    net = prepare_model(
        torch_net.make_net(row),
        parallel_strategy_kwargs={"broadcast_buffers": False, "gradient_as_bucket_view": True},
    )
    ddp_loop.rank_loop(row, net, Path(config["folder"]))


@contextmanager
def session(options: argparse.Namespace, row: Row) -> Iterator[Measure]:
    """Starts a local Ray and one training run that lasts as long as the session."""
    root = str(Path(__file__).resolve().parents[2])
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    # One CPU more than the workers use: the trainer itself asks for one in some versions.
    ray.init(
        address="local",
        num_cpus=WORKERS + 1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}},
    )
    with pipes_folder() as folder, tempfile.TemporaryDirectory(prefix="distbp-bench-") as storage:
        trainer = TorchTrainer(
            worker_main,
            train_loop_config={"row": row.name, "cores": options.cores, "folder": str(folder)},
            scaling_config=ScalingConfig(num_workers=WORKERS, resources_per_worker={"CPU": 1}),
            torch_config=TorchConfig(backend="gloo"),
            run_config=RunConfig(storage_path=storage),
        )
        thread = threading.Thread(target=trainer.fit)
        thread.start()
        with measuring(folder, thread.is_alive) as one:
            yield one
        thread.join()
    ray.shutdown()


if __name__ == "__main__":
    main_session(session)
