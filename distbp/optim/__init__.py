"""Update rules over flat vectors. `parts` has the contract and the small parts, `recipes` the optimizers
made of them, `ops` what they compute, and `updater` the engine that runs a chain."""

from distbp.optim.parts import Part, Rule, Step
from distbp.optim.recipes import OPTIMIZERS, Optimizer, chain
from distbp.optim.updater import Updater, sum_of_squares

__all__ = ["OPTIMIZERS", "Optimizer", "Part", "Rule", "Step", "Updater", "chain", "sum_of_squares"]
