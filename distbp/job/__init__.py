"""The job that a user writes. `training_job` defines it, and `parts` its parts. `kinds` turns the tables of
layers, losses, optimizers, ... into fields. `checks` and `data_checks` find values that do not fit together.
`text` reads YAML and JSON. `digest` has the canonical form. `schema` is for editors, `reference` for
people."""

from distbp.job.parts import WorkerRange
from distbp.job.training_job import TrainingJob

__all__ = ["TrainingJob", "WorkerRange"]
