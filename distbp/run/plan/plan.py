"""Implements `distbp plan`: predicts the speed of a job by number of workers, and what limits it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distbp.core.arguments import path_given
from distbp.core.errors import SettingsError
from distbp.core.imports import missing
from distbp.engine import numerics
from distbp.job import TrainingJob
from distbp.job.members import networks
from distbp.run.blueprints import make_blueprint
from distbp.run.plan import calibrate
from distbp.run.plan.speed_model import Layout, Machine, StepTime, Work, node_limit, step_time
from distbp.run.splits import open_splits
from distbp.run.train import Data, by_split, check_job
from distbp.team.auto import RAY_START_S, candidates, choose


@dataclass(frozen=True)
class JobPlan:
    """`here`: predictions for this machine by number of workers, 0 (inline) first. `nodes`: predictions for
    more machines like it, as (nodes, prediction). `networks`: how many the job trains. `total_steps`: of all
    networks together."""

    name: str
    parameters: int
    batch_size: int
    total_steps: int
    work: Work
    machine: Machine
    layout: Layout
    here: tuple[StepTime, ...]
    nodes: tuple[tuple[int, StepTime], ...]
    networks: int = 1

    @property
    def best(self) -> StepTime:
        """The prediction for the workers that `workers: auto` would choose on this machine."""
        tried = (0, *candidates(self.machine.cores, self.work.shards))
        times = {step.workers: step for step in self.here if step.workers in tried}
        return times[choose({n: 1 / step.total_s for n, step in times.items()}, self.total_steps)]

    @property
    def seconds(self) -> float:
        """The seconds of the whole job with the best number of workers, including the start of Ray but not
        evaluations."""
        return self.best.total_s * self.total_steps + (RAY_START_S if self.best.workers else 0)

    def samples_per_second(self, step: StepTime) -> float:
        return self.batch_size / step.total_s

    def speedup(self, step: StepTime) -> float:
        """The speed-up of a prediction against inline training."""
        return self.here[0].total_s / step.total_s

    def to_json(self) -> dict[str, Any]:
        def told(step: StepTime) -> dict[str, Any]:
            more = {"step_s": step.total_s, "limit": step.limit}
            return {**asdict(step), **more, "samples_per_second": self.samples_per_second(step)}

        return {
            "name": self.name,
            "parameters": self.parameters,
            "batch_size": self.batch_size,
            "total_steps": self.total_steps,
            "work": asdict(self.work),
            "machine": asdict(self.machine),
            "layout": asdict(self.layout),
            "here": [told(step) for step in self.here],
            "nodes": [{"nodes": nodes, **told(step)} for nodes, step in self.nodes],
            "best_workers": self.best.workers,
            "seconds": self.seconds,
            "most_nodes": node_limit(self.work, self.machine, self.layout)
            if self.networks == 1
            else -(-self.networks // self.machine.cores),
        }


def plan_job(
    job: TrainingJob,
    *,
    data: Data | None = None,
    folder: str | Path = ".",
    bandwidth_gbits: float = 10.0,
    latency_ms: float = 0.1,
    seconds: float = calibrate.MEASURE_S,
) -> JobPlan:
    """Measures some steps of the job and an exchange on this machine, and predicts from them; waits.

    bandwidth_gbits, latency_ms: of the network between machines like this one. data, folder: as in `train`.
    seconds: for each measurement. Raises JobError, DataError, ExchangeError.
    """
    check_job(job)
    splits = open_splits(job, path_given(folder, "folder"), by_split(data))
    blueprint = make_blueprint(job, splits)
    network = blueprint.network()
    with numerics.one_blas_thread(), numerics.quiet():
        work = calibrate.measure_work(blueprint, splits.ready(blueprint), seconds)
        machine = calibrate.measure_machine(network.size, blueprint.dtype, seconds)
    machine = replace(machine, bandwidth=bandwidth_gbits * 1e9 / 8, latency_s=latency_ms / 1e3)
    layout, several = Layout(servers=job.servers), networks(job)
    return JobPlan(
        job.name,
        network.parameter_count,
        blueprint.batch_size,
        several * blueprint.total_steps,
        work,
        machine,
        layout,
        *(predict(work, machine, layout) if several == 1 else predict_apart(work, machine, several)),
        several,
    )


def predict(
    work: Work, machine: Machine, layout: Layout
) -> tuple[tuple[StepTime, ...], tuple[tuple[int, StepTime], ...]]:
    """The predictions `here` and `nodes` of a `JobPlan`."""
    most = min(machine.cores, work.shards)
    numbers = sorted({0, *_numbers(most), *candidates(machine.cores, work.shards)})
    alone = replace(layout, servers=1)
    here = tuple(step_time(work, machine, n, alone) for n in numbers)
    counts = _node_counts(-(-work.shards // machine.cores))
    nodes = tuple((n, step_time(work, machine, n * machine.cores, layout)) for n in counts)
    return here, nodes


def predict_apart(
    work: Work, machine: Machine, several: int
) -> tuple[tuple[StepTime, ...], tuple[tuple[int, StepTime], ...]]:
    """Like `predict`, for `several` networks that train at the same time, each on one core. A step of one
    network runs its shards one after the other; its time is divided by the number of networks at work."""
    alone = step_time(replace(work, inline_s=None), machine, 0)

    def shared(workers: int, count: int) -> StepTime:
        return StepTime(workers, alone.compute_s / count, 0.0, 0.0, alone.update_s / count, 0.0)

    most = min(machine.cores, several)
    here = (shared(0, most), *(shared(n, n) for n in _numbers(most)))
    counts = _node_counts(-(-several // machine.cores))
    full = [(n, min(several, n * machine.cores)) for n in counts]
    return here, tuple((nodes, shared(count, count)) for nodes, count in full)


def _numbers(most: int) -> list[int]:
    """The numbers of workers on one machine for which to predict."""
    usual = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)
    return sorted({1, most, *(n for n in usual if n < most)})


def _node_counts(full: int) -> list[int]:
    """The numbers of nodes for which to predict, up to `full`."""
    return [n for n in (2**k for k in range(1, 12)) if n < full] + ([full] if full > 1 else [])


def describe(plan: JobPlan) -> str:
    """The plan as text."""
    work, machine = plan.work, plan.machine
    shards = f"{work.shards} shard{'s' if work.shards != 1 else ''}"
    cpus = f"{machine.cores} CPU{'s' if machine.cores != 1 else ''}"
    join_s = work.bytes * machine.join_s_per_byte
    several = f"{plan.networks} networks of " if plan.networks > 1 else ""
    lines = [
        f"{plan.name}: {several}{plan.parameters:,} parameters, batches of {plan.batch_size:,} in {shards},"
        f" {plan.total_steps:,} steps",
        f"measured on this machine ({cpus}): a shard {_time(work.shard_s)}, an update {_time(work.update_s)},"
        f" a wake-up {_time(machine.wake_s)}, joining two sums {_time(join_s)}",
        "",
        f"  {'workers':<18}{'step':>10}{'samples/s':>14}{'speed-up':>10}  most of it is",
    ]
    for step in plan.here:
        lines.append(_row("inline" if step.workers == 0 else str(step.workers), plan, step))
    for nodes, step in plan.nodes:
        lines.append(_row(f"{step.workers} on {nodes} nodes", plan, step))
    return "\n".join([*lines, "", *_advice(plan)])


def _row(name: str, plan: JobPlan, step: StepTime) -> str:
    speed, times = f"{plan.samples_per_second(step):,.0f}", f"{plan.speedup(step):.2f}"
    return f"  {name:<18}{_time(step.total_s):>10}{speed:>14}{times:>10}  {step.limit}"


def _advice(plan: JobPlan) -> list[str]:
    work, machine, found = plan.work, plan.machine, plan.best
    workers = (
        "workers: 0 (inline)"
        if found.workers == 0
        else f"workers: {found.workers}, {plan.speedup(found):.2f} times inline"
    )
    lines = [
        f"best on this machine: {workers}; the whole job takes about {_time(plan.seconds)} without evaluation"
    ]
    if plan.networks > 1:
        lines.append(
            f"the networks train side by side, each on one worker: more than {plan.networks} workers share"
            " its shards among the CPUs of one node"
        )
        return lines
    fastest_here = min(plan.here, key=lambda step: step.total_s)
    if found.workers == 0 and fastest_here.workers:
        lines.append(
            f"{fastest_here.workers} worker{'s' if fastest_here.workers > 1 else ''} would make a step"
            f" {plan.speedup(fastest_here):.2f} times as fast, but starting Ray takes some {RAY_START_S:g} s:"
            " too little to gain"
        )
    if work.shards <= machine.cores:
        lines.append(
            f"more than {work.shards} worker{'s' if work.shards != 1 else ''} can do nothing for this"
            " job: it has as many shards. More shards are other sums, so that is another job"
        )
        return lines
    limit = node_limit(work, machine, plan.layout)
    speed = f"{machine.bandwidth * 8 / 1e9:g} Gbit/s and {machine.latency_s * 1e3:g} ms"
    if limit == 1:
        lines.append(f"a second node like this one, over {speed}, makes no step shorter")
        return lines
    fastest = step_time(work, machine, limit * machine.cores, plan.layout)
    lines.append(
        f"with nodes like this one over {speed}: up to {limit}, {plan.speedup(fastest):.1f} times inline;"
        f" there most of a step is {fastest.limit}"
    )
    ranges = replace(plan.layout, servers=2 * plan.layout.servers)
    farther = node_limit(work, machine, ranges)
    if farther > limit:
        then = plan.here[0].total_s / step_time(work, machine, farther * machine.cores, ranges).total_s
        lines.append(f"servers: {ranges.servers} would move that to {farther} nodes, {then:.1f} times inline")
    return lines


def draw_speedups(plan: JobPlan, path: Path) -> None:
    """Writes a picture of the predicted speed-up by workers, as SVG or PNG. Raises SettingsError without
    matplotlib."""
    try:
        from distbp.run.curves import draw_lines
    except ModuleNotFoundError:
        raise SettingsError(missing("a picture", "matplotlib", "distbp[plot]")) from None

    points = [(s.workers, plan.speedup(s)) for s in (*plan.here[1:], *(s for _, s in plan.nodes))]
    highest = max(n for n, _ in points)
    ideal = [(1.0, 1.0), (float(highest), float(highest))]
    draw_lines(
        {"predicted": points, "ideal": ideal}, path, f"{plan.name}: speed-up against inline", "workers"
    )


def _time(seconds: float) -> str:
    if seconds >= 120:
        return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"
