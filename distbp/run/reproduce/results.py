"""The published results that `distbp reproduce` reproduces, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from distbp.run.reproduce import cs231n, mazur
from distbp.run.reproduce.figures import Published
from distbp.run.reproduce.nielsen_curves import (
    reproduce_overfitting,
    reproduce_three_shards,
    reproduce_weight_initialization,
)

_DATA = ("MNIST", "the book's curves")

RESULTS: Mapping[str, Published] = MappingProxyType(
    {
        "mazur": Published("one step of a 2-2-2 network, digit by digit", "seconds", mazur.reproduce),
        "nielsen/overfitting": Published(
            "1,000 images, 400 epochs: overfitting", "a minute", reproduce_overfitting, _DATA
        ),
        "nielsen/three-shards": Published(
            "the same with batches cut 4, 3, 3 over three shards",
            "some minutes",
            reproduce_three_shards,
            _DATA,
        ),
        "nielsen/weight-initialization-30": Published(
            "30 hidden units, two ways to draw weights",
            "some minutes",
            reproduce_weight_initialization,
            _DATA,
        ),
        "cs231n/rnn": Published("one step of an Elman network", "seconds", cs231n.reproduce),
        "cs231n/lstm": Published("one step of an LSTM", "seconds", cs231n.reproduce_lstm),
    }
)
