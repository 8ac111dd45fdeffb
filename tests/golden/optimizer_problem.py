"""The problem of the optimizer goldens: six weights; a gradient that depends on weights and step."""

import numpy as np

START = [1.0, -0.8, 0.5, -0.3, 2.0, 0.1]
KEPT_STEPS = [1, 2, 3, 10, 25, 49, 50, 51, 52, 75, 100]
RATE_CHANGE = {"first_step": 51, "factor": 0.3}


def gradient(w, step):
    """(6,) float64: coupled curvature and a push that swings with the step."""
    index = np.arange(6)
    return (0.2 + 0.6 * index) * w - 0.1 * np.roll(w, 1) + 0.3 * np.sin(0.7 * step + index)
