"""Update rules over flat vectors. `parts` has the contract and the small parts, `recipes` the optimizers made
of them, `updater` the engine that runs a chain, `compiled` faster ones of the same (Numba, optional)."""

from distbp.optimizers.parts import Part, Step
from distbp.optimizers.recipes import OPTIMIZERS, Optimizer, chain
from distbp.optimizers.updater import Updater, sum_of_squares

__all__ = ["OPTIMIZERS", "Optimizer", "Part", "Step", "Updater", "chain", "sum_of_squares"]
