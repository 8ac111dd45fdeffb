"""The peers, as data: which module measures each, what it needs, and in which comparison it takes part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

ONE_CORE, TWO_CORE = "one-core", "two-core"
ANY_JOB, ANY_JOB_TWO_CORE = "any-job", "any-job-two-core"
NETWORKS, NETWORKS_TWO_CORE = "networks", "networks-two-core"
OURS = "distbp"


@dataclass(frozen=True, slots=True)
class Peer:
    """`needs`: modules that must be importable; `ours`: measured against the others, never one of them;
    `kernels`: the kernel set that it is about, which not every processor can use."""

    name: str
    module: str
    needs: tuple[str, ...]
    comparisons: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    ours: bool = False
    kernels: str = ""

    @property
    def missing(self) -> tuple[str, ...]:
        """The needed modules that are not installed."""
        return tuple(module for module in self.needs if find_spec(module) is None)

    @property
    def refused(self) -> str:
        """Why this machine cannot use its kernel set; empty where it can."""
        from distbp.engine.numerics import (
            kernel_set,  # loads NumPy, and a peer's threads must be fixed before that
        )

        try:
            kernel_set(self.kernels or "numpy")
        except ImportError as error:
            return str(error)
        return ""


_DENSE = (ONE_CORE, TWO_CORE, ANY_JOB, ANY_JOB_TWO_CORE)
_TABLE = (
    Peer("distbp", "benchmarks.distbp_inline", ("distbp",), (ONE_CORE, ANY_JOB, NETWORKS), ours=True),
    # Without the matrix unit, for large products: with the instructions that the peers' float32 uses.
    Peer(
        "distbp, MKL",
        "benchmarks.distbp_inline",
        ("distbp", "numba"),
        (ONE_CORE,),
        ("--kernels", "mkl"),
        ours=True,
        kernels="mkl",
    ),
    Peer(
        "distbp, Numba only",
        "benchmarks.distbp_inline",
        ("distbp", "numba"),
        (ONE_CORE,),
        ("--kernels", "numba"),
        ours=True,
    ),
    Peer(
        "distbp, NumPy only",
        "benchmarks.distbp_inline",
        ("distbp",),
        (ONE_CORE,),
        ("--kernels", "numpy"),
        ours=True,
    ),
    Peer(
        "distbp auto",
        "benchmarks.distbp_workers",
        ("distbp", "ray"),
        (TWO_CORE, ANY_JOB_TWO_CORE, NETWORKS_TWO_CORE),
        ("--workers", "auto"),
        ours=True,
    ),
    Peer(
        "distbp auto, MKL",
        "benchmarks.distbp_workers",
        ("distbp", "ray", "numba"),
        (TWO_CORE,),
        ("--workers", "auto", "--kernels", "mkl"),
        ours=True,
        kernels="mkl",
    ),
    Peer(
        "distbp 2 workers",
        "benchmarks.distbp_workers",
        ("distbp", "ray"),
        (TWO_CORE,),
        ("--workers", "2"),
        ours=True,
    ),
    Peer(
        "distbp 1 worker",
        "benchmarks.distbp_workers",
        ("distbp", "ray"),
        (TWO_CORE,),
        ("--workers", "1"),
        ours=True,
    ),
    Peer("PyTorch eager", "benchmarks.peers.pytorch_eager", ("torch",), _DENSE),
    Peer("PyTorch, best form", "benchmarks.peers.torch_networks", ("torch",), (NETWORKS, NETWORKS_TWO_CORE)),
    Peer("JAX, best form", "benchmarks.peers.jax_networks", ("jax",), (NETWORKS, NETWORKS_TWO_CORE)),
    Peer("PyTorch by hand", "benchmarks.peers.pytorch_handwritten", ("torch",), (ONE_CORE,)),
    Peer("JAX jit+scan", "benchmarks.peers.jax_scan", ("jax",), _DENSE),
    # XLA's threads cost a small net half its speed, and XLA takes as many as it is given cores.
    Peer(
        "JAX on one core",
        "benchmarks.peers.jax_scan",
        ("jax",),
        (TWO_CORE, ANY_JOB_TWO_CORE),
        ("--first-cores", "1"),
    ),
    Peer("scikit-learn", "benchmarks.peers.scikit_learn", ("sklearn",), (ONE_CORE, ANY_JOB)),
    Peer("PyTorch DDP", "benchmarks.peers.pytorch_ddp", ("torch",), (TWO_CORE,)),
    Peer("Ray Train", "benchmarks.peers.ray_train", ("torch", "ray"), (TWO_CORE,)),
)


def with_base(peers: Sequence[Peer], package: str, name: str) -> list[Peer]:
    """The peers, and after the first of ours the same of another checkout, called `name`."""
    found = list(peers)
    ours = next(number for number, peer in enumerate(found) if peer.ours)
    arguments = (*found[ours].arguments, "--package", package)
    found.insert(ours + 1, replace(found[ours], name=name, arguments=arguments))
    return found


PEERS: dict[str, Peer] = {peer.name: peer for peer in _TABLE}
