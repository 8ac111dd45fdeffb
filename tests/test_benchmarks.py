"""The benchmark's tables are complete, and what is missing or failed is named. Nothing is timed here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bars, distbp_session, run, table, table_peers, tables
from benchmarks.networks import NETWORK_ROWS
from benchmarks.peer_process import PeerProcess, family
from benchmarks.peers import ONE_CORE, PEERS, Peer, with_base
from benchmarks.rows import ALL_ROWS, ANY_ROWS, ROWS, Row
from benchmarks.synthetic import first_weights, orders, samples
from benchmarks.table import Results
from distbp import TrainingJob
from distbp.nn.network import Network

SMALL = Row("small", (6, 5, 3), 4, "relu", 50)


def test_the_six_rows():
    assert [row.label for row in ROWS.values()] == [
        "784-30-10, 10",
        "784-100-10, 10",
        "784-256-256-10, 128",
        "1024-2048-2048-10, 512",
        "54-128-64-7, 256",
        "54-128-64-7, 2048",
    ]
    assert ROWS["mnist-30"].parameters == 785 * 30 + 31 * 10
    assert {row.activation for row in ROWS.values()} == {"sigmoid", "relu"}
    # DDP gives each of two ranks half of a batch.
    assert all(row.batch % 2 == 0 for row in ROWS.values())


def test_rows_of_any_job_are_jobs_of_ours():
    """Each differs from the others, in its label too, and is a job that distbp takes."""
    assert len({row.label for row in ALL_ROWS.values()}) == len(ALL_ROWS) - 2  # two stand in both comparisons
    assert ANY_ROWS["clip-norm"].label == "54-128-64-7, 256, momentum, clip by norm"
    for row in ANY_ROWS.values():
        job = TrainingJob.from_mapping(distbp_session.job_of(row, row.shards_of_one_core))
        assert (job.loss.type, job.optimizer.type, job.shards) == (
            row.loss,
            row.optimizer,
            row.shards_of_one_core,
        )
        assert (job.clip is not None) == bool(row.clip_norm)
        inputs, targets = samples(replace(row, samples=40))
        assert inputs.shape == (40, row.sizes[0])
        assert targets.shape == ((40,) if row.loss == "softmax_cross_entropy" else (40, row.sizes[-1]))


def test_rows_of_networks_are_jobs_of_ours_with_data_of_their_shape():
    for row in NETWORK_ROWS.values():
        job = TrainingJob.from_mapping(distbp_session.job_of(row, row.shards_of_one_core))
        inputs, labels = samples(replace(row, samples=40))
        assert inputs.shape == (40, *row.shape)
        assert inputs.dtype == (np.int64 if row.below else np.float32)
        assert len(set(labels)) > 5
        network = Network(job.model.layers, row.shape)
        assert network.output_shape == (10,)


def test_another_commit_is_one_more_column(tmp_path: Path):
    ours, other = with_base([PEERS["distbp"], PEERS["JAX jit+scan"]], "/base", "distbp at 1234567")[:2]
    assert (ours.name, other.name) == ("distbp", "distbp at 1234567")
    assert other.ours and other.module == ours.module and other.arguments[-2:] == ("--package", "/base")
    with pytest.raises(SystemExit, match="not a checkout of distbp; make one with `git worktree add`"):
        run.commit_of(tmp_path)


def test_scikit_learn_takes_part_where_it_can_do_the_job():
    assert {name for name, row in (ROWS | ANY_ROWS).items() if not run.scikit_can(row)} == {
        "normalized",
        "gelu",
        "dropout",
        "clip-norm",
        "class-weights",
        "adagrad-l1",
    }


def test_every_peer_has_a_module_and_a_comparison():
    for peer in PEERS.values():
        assert find_spec(peer.module) is not None, peer.module
        assert peer.comparisons and set(peer.comparisons) <= set(run.COMPARISONS)
        assert peer.needs
    for comparison in run.COMPARISONS:
        ours = [peer.ours for peer in PEERS.values() if comparison in peer.comparisons]
        assert ours[0], "our first variant gives the ratio"
        assert not all(ours)


def test_bars_name_known_rows_and_peers():
    for bar in bars.BARS:
        assert bar.ours in PEERS
        assert bar.other == bars.BEST or bar.other in PEERS
        assert set(bar.rows) <= set(ALL_ROWS)


def test_a_missing_peer_is_named():
    absent = Peer("Nobody", "benchmarks.peers.nobody", ("no_such_module",), (ONE_CORE,))
    here = Peer("Somebody", "benchmarks.peers.jax_scan", ("numpy",), (ONE_CORE,))
    results = Results()
    assert run.note_missing([here, absent], results) == [here]
    results.rates["small"] = {"Somebody": [1000.0, 3000.0, 2000.0]}
    text = table.markdown([SMALL], [here, absent], results)
    assert "| net, batch | Somebody | Nobody | ratio to the best peer |" in text
    assert "| 6-5-3, 4 | **2,000** | missing | - |" in text
    assert "- **Nobody** is missing: no_such_module not installed;" in text


def test_kernels_that_this_machine_cannot_use_are_named(monkeypatch):
    def refuse(wanted):
        raise ImportError(f"this processor has no {wanted}")

    monkeypatch.setattr("distbp.engine.numerics.kernel_set", refuse)
    ours = Peer("ours", "benchmarks.distbp_inline", ("numpy",), (ONE_CORE,), ours=True, kernels="amx")
    results = Results()
    assert run.note_missing([ours], results) == []
    text = table.markdown([SMALL], [ours], results)
    assert "| 6-5-3, 4 | missing | - |" in text
    assert "- **ours** cannot be here: this processor has no amx" in text


def test_a_failed_peer_is_named_and_the_ratio_is_to_the_best():
    ours = Peer("ours", "benchmarks.distbp_inline", ("numpy",), (ONE_CORE,), ours=True)
    slow, fast, broken = (
        Peer(name, "benchmarks.peers.jax_scan", ("numpy",), (ONE_CORE,))
        for name in ("slow", "fast", "broken")
    )
    results = Results(
        {"small": {"ours": [300.0], "slow": [100.0], "fast": [200.0]}}, {"broken": "failed on ..."}
    )
    peers = [ours, slow, fast, broken]
    text = table.markdown([SMALL], peers, results)
    assert "| **300** | 100 | 200 | failed | 1.50 (fast) |" in text
    assert "- **broken** failed on ..." in text
    assert "| 6-5-3, 4 | 3.00 | 1.50 | - |" in table.multiples([SMALL], peers, results)
    assert "| 300-300 | 100-100 | 200-200 | - |" in table.spread([SMALL], peers, results)


def test_verdicts_say_met_and_not_met():
    results = Results({"mnist-30": {"distbp": [300.0], "PyTorch eager": [100.0], "JAX jit+scan": [200.0]}})
    assert bars.verdicts(ONE_CORE, list(ROWS.values()), results) == [
        "met: 784-30-10, 10: distbp is 1.50 times JAX jit+scan (bar 1)",
        "NOT met: 784-30-10, 10: distbp is 3.00 times PyTorch eager (bar 4)",
    ]


def test_a_run_with_a_peer_that_fails_goes_on(monkeypatch, capsys):
    broken = Peer("broken", "benchmarks.peers.no_such_peer", ("numpy",), (ONE_CORE,))
    results = Results()
    run.run_row(SMALL, [broken], [0], rounds=1, seconds=0.1, results=results)
    assert "failed on 6-5-3, 4: ended with exit code 1" in results.absent["broken"]
    assert "No module named benchmarks.peers.no_such_peer" in results.absent["broken"]


def state(pid: int) -> str:
    """T: stopped, Z: ended and not yet waited for (proc(5)); `gone`."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline


A_PEER = """
import json, os, subprocess, sys
# The shell ends at once, so that its child loses its parent.
child = int(subprocess.check_output(["sh", "-c", "sleep 1000 >&2 & echo $!"]))
print(json.dumps({"ready": "small"}), flush=True)
for line in sys.stdin:
    print(json.dumps({"samples_per_second": 1.0, "pids": [os.getpid(), child]}), flush=True)
os.kill(child, 9)
"""


def test_a_waiting_peer_is_stopped_with_all_its_processes(tmp_path: Path, monkeypatch):
    (tmp_path / "a_peer.py").write_text(A_PEER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = PeerProcess(Peer("a", "a_peer", ("numpy",), (ONE_CORE,)), SMALL, [0])
    try:
        pids = process.measure(0.0)["pids"]
        assert family(pids[0]) == pids
        until(lambda: {state(pid) for pid in pids} == {"T"})
        assert process.measure(0.0)["pids"] == pids
    finally:
        process.close()
    until(lambda: all(state(pid) in ("gone", "Z") for pid in pids))


def test_sections_are_replaced_and_the_rest_stays(tmp_path: Path):
    page = tmp_path / "docs" / "benchmarks.md"
    for text in ("first", "second"):
        table.replace_section(page, ONE_CORE, text)
    found = page.read_text()
    assert "second" in found and "first\n" not in found
    assert found.count("Not measured yet") == table.TEMPLATE.read_text().count("Not measured yet") - 1 == 12
    with pytest.raises(SystemExit, match="expected one pair of markers 'nowhere:begin'"):
        table.replace_section(page, "nowhere", "text")


def test_unknown_names_are_refused():
    with pytest.raises(SystemExit, match="--rows: not known: mnist; allowed: mnist-30"):
        run.chosen("mnist", ROWS, "--rows")
    assert run.chosen("mnist-30, wide-2048", ROWS, "--rows") == [ROWS["mnist-30"], ROWS["wide-2048"]]


def test_peers_are_chosen_by_name_also_where_the_name_has_a_comma():
    for names in ("distbp, distbp, Numba only, JAX jit+scan", "PyTorch, best form,distbp auto, MKL"):
        found = [peer.name for peer in run.chosen(names, run.PEERS, "--peers")]
        assert ", ".join(found) == names.replace("form,d", "form, d")
    assert len(run.chosen("distbp, distbp, Numba only, JAX jit+scan", run.PEERS, "--peers")) == 3
    with pytest.raises(SystemExit, match="--peers: not known: MKL; allowed: distbp, distbp, MKL"):
        run.chosen("PyTorch eager, MKL", run.PEERS, "--peers")


def test_every_peer_gets_the_same_samples_and_batches():
    inputs, labels = samples(SMALL)
    assert inputs.shape == (50, 6) and inputs.dtype == np.float32
    assert labels.shape == (50,) and set(labels) <= {0, 1, 2}
    assert [w.shape for w, _ in first_weights(SMALL)] == [(6, 5), (5, 3)]
    whole, pieces = orders(SMALL), orders(SMALL, steps=5)
    epoch = next(whole)
    assert epoch.shape == (12, 4) and len(set(epoch.ravel())) == 48
    assert np.array_equal(np.concatenate([next(pieces) for _ in range(3)]), epoch)


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_our_job_is_the_row(row: Row):
    from distbp import TrainingJob

    job = TrainingJob.from_mapping(distbp_session.job_of(row, row.shards))
    assert tuple(layer.units for layer in job.model.layers) == row.sizes[1:]
    assert job.batch_size == row.batch and job.drop_last
    assert {layer.activation for layer in job.model.layers[:-1]} == {row.activation}


def test_the_service_is_judged_by_its_99th_percentile():
    pytest.importorskip("fastapi", reason="the extra 'service' is not installed")
    from benchmarks.service import Line, markdown

    quick = Line("submit", [10.0] * 99 + [500.0], 100.0)
    slow = Line("page", [200.0] * 10, 100.0)
    told = Line("crowd", [1.0], None)
    assert (quick.p99, slow.p99) == (500.0, 200.0)
    text = markdown({"SQLite": [Line("few", [5.0] * 200, 100.0), slow, told]}, "python -m x")
    assert "| few | 5.0 | 5.0 | 5.0 | 100: met |" in text
    assert "| page | 200.0 | 200.0 | 200.0 | 100: NOT met |" in text
    assert "| crowd | 1.0 | 1.0 | 1.0 |  |" in text


def test_other_libraries_prepare_the_same_cells(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    tables.make(tmp_path / "table", 3_000)
    made = {name: tmp_path / f"{name}.npy" for name in table_peers.PEERS}
    for name, prepare in table_peers.PEERS.items():
        assert prepare(tmp_path / "table", made[name]) == 3_000
    lazy = polars.read_ipc(made["polars, streaming"]).to_numpy()
    arrow, frame = (np.load(made[name]) for name in ("pyarrow and NumPy", "pandas and scikit-learn"))
    order = [*range(0, 36, 2), *range(1, 36, 2), *range(36, 48)]  # numbers, flags, codes, day, target
    assert np.allclose(arrow[:, order], lazy, atol=1e-5)
    assert np.allclose(frame[:, :36], lazy[:, :36], atol=1e-5)
    assert np.array_equal(frame[:, 36:46] + 1, lazy[:, 36:46])
    assert np.array_equal(frame[:, -1], lazy[:, -1])


def test_the_table_of_small_tables() -> None:
    pytest.importorskip("sklearn", "1.6")
    from benchmarks.table_accuracy import COLUMNS, markdown

    runs = [{column: number / 10 for number, column in enumerate(COLUMNS)} for _ in range(2)]
    head, _, wine, oil = markdown({"wine": runs, "oil": runs}, {"oil"}).splitlines()
    assert head.split(" | ")[2:4] == ["recipe table, 1 network", "recipe table, 5 members"]
    assert wine.startswith("| wine | accuracy | 0.000 ± 0.000 | 0.100 ± 0.000 |")
    assert oil.startswith("| oil | R2 |")
    assert oil.endswith("| **0.500 ± 0.000** |")
