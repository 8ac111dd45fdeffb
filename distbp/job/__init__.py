"""The job a user writes: `training_job` has it, `parts` its parts. `kinds` turns the tables of layers,
losses, optimizers, ... into fields; `checks` and `data_checks` know what does not fit together; `text` reads
YAML and JSON; `digest` is the canonical form; `schema` and `reference` are what editors and people read."""

from distbp.job.parts import WorkerRange
from distbp.job.training_job import TrainingJob

__all__ = ["TrainingJob", "WorkerRange"]
