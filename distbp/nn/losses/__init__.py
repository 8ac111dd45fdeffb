"""All losses, by the `type` that names them in a job. The contract is in `distbp.nn.losses.base`."""

from __future__ import annotations

from collections.abc import Mapping

from distbp.core.options import registry
from distbp.nn.losses.binary import BinaryCrossEntropy, Perceptron, SigmoidCrossEntropy
from distbp.nn.losses.classification import NLL, Hinge, SoftmaxCrossEntropy
from distbp.nn.losses.regression import MAE, MSE, Huber, Poisson, Quadratic

LOSSES: Mapping[str, type] = registry(
    Quadratic,
    MSE,
    MAE,
    Huber,
    Poisson,
    SigmoidCrossEntropy,
    BinaryCrossEntropy,
    Perceptron,
    SoftmaxCrossEntropy,
    NLL,
    Hinge,
)
