"""Losses: the contract in `base`, then the instances by what they compare, and the table of all of them."""

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
