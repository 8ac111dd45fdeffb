"""Update rules over flat vectors. `parts` has the contract and the small parts, `recipes` the optimizers
made of them, `ops` their arithmetic, and `updater` the engine that runs a chain. `whole_batch` has methods
that search along a line, and `searching` their engine. `evolution` needs no gradient."""

from collections.abc import Mapping

from distbp.core.options import registry
from distbp.optim.evolution import Evolution
from distbp.optim.parts import Part, Rule, Step
from distbp.optim.recipes import CHAINS, Optimizer, chain
from distbp.optim.searching import Searching
from distbp.optim.updater import Updater, sum_of_squares
from distbp.optim.whole_batch import LBFGS, ConjugateGradient

OPTIMIZERS: Mapping[str, type] = registry(*CHAINS.values(), ConjugateGradient, LBFGS, Evolution)

__all__ = [
    "CHAINS",
    "OPTIMIZERS",
    "Optimizer",
    "Part",
    "Rule",
    "Searching",
    "Step",
    "Updater",
    "chain",
    "sum_of_squares",
]
