"""distbp: distributed minibatch training on CPUs. Any number of workers, any failure, the same bits.

    job = distbp.TrainingJob.from_file("job.yaml")
    result = distbp.train(job)
    result.model().predict(x)

Names are loaded when first used, so importing distbp is quick, and never imports ray.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distbp.client.handle import JobHandle as JobHandle
    from distbp.client.service import Service as Service
    from distbp.client.service import connect as connect
    from distbp.client.service import submit as submit
    from distbp.core.errors import DistbpError as DistbpError
    from distbp.core.errors import Fault as Fault
    from distbp.core.errors import JobError as JobError
    from distbp.core.interrupts import Control as Control
    from distbp.job import TrainingJob as TrainingJob
    from distbp.model.folder import load_model as load_model
    from distbp.model.predictor import Model as Model
    from distbp.run.result import Result as Result
    from distbp.run.train import resume as resume
    from distbp.run.train import train as train
    from distbp.sklearn import DistbpClassifier as DistbpClassifier
    from distbp.sklearn import DistbpRegressor as DistbpRegressor

__version__ = "0.1.0"

_HOMES = MappingProxyType(
    {
        "Control": "distbp.core.interrupts",
        "DistbpError": "distbp.core.errors",
        "Fault": "distbp.core.errors",
        "JobError": "distbp.core.errors",
        "JobHandle": "distbp.client.handle",
        "Model": "distbp.model.predictor",
        "Result": "distbp.run.result",
        "Service": "distbp.client.service",
        "TrainingJob": "distbp.job",
        "connect": "distbp.client.service",
        "load_model": "distbp.model.folder",
        "resume": "distbp.run.train",
        "submit": "distbp.client.service",
        "train": "distbp.run.train",
    }
)

# Not in `__all__`: they need the extra `sklearn`.
_EXTRAS = MappingProxyType({"DistbpClassifier": "distbp.sklearn", "DistbpRegressor": "distbp.sklearn"})

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name == "sklearn":
        return import_module("distbp.sklearn")
    home = _HOMES.get(name) or _EXTRAS.get(name)
    if home is None:
        raise AttributeError(f"module 'distbp' has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    own = (name for name in globals() if name.startswith("__"))
    return [*own, *_HOMES, *_EXTRAS, "sklearn"]
