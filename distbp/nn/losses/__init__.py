"""Losses: the contract in `base`, then the instances by what they compare, and the table of all of them."""

from __future__ import annotations

from collections.abc import Mapping

from distbp.core.options import registry
from distbp.nn.losses.base import Loss, LossOp, Takes, TargetKind, Targets, Task, lower_loss
from distbp.nn.losses.binary import BinaryCrossEntropy, Perceptron, SigmoidCrossEntropy
from distbp.nn.losses.classification import NLL, Hinge, SoftmaxCrossEntropy
from distbp.nn.losses.regression import MAE, MSE, Huber, Poisson, Quadratic
from distbp.nn.losses.several import Head, Heads, Losses, OutputLoss, heads_of, names_of, parts_of

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

__all__ = [
    "LOSSES",
    "MAE",
    "MSE",
    "NLL",
    "BinaryCrossEntropy",
    "Head",
    "Heads",
    "Hinge",
    "Huber",
    "Loss",
    "LossOp",
    "Losses",
    "OutputLoss",
    "Perceptron",
    "Poisson",
    "Quadratic",
    "SigmoidCrossEntropy",
    "SoftmaxCrossEntropy",
    "Takes",
    "TargetKind",
    "Targets",
    "Task",
    "heads_of",
    "lower_loss",
    "names_of",
    "parts_of",
]
