"""Records what PyTorch's optimizers and schedulers do, for tests that need no PyTorch.

    python tests/golden/record_torch_optimizers.py > tests/golden/torch_optimizers.json

Needs torch (2.13 made the file here). Everything is float64. Problem and cases are in the recorded
file or in `optimizer_problem.py`, so that the tests and this script cannot drift apart.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from optimizer_problem import KEPT_STEPS, RATE_CHANGE, START, gradient

SGD, ADAM = torch.optim.SGD, torch.optim.Adam

# name, PyTorch's class and options, distbp's type and options, clipping
OPTIMIZERS = [
    ("sgd", SGD, {"lr": 0.1}, "sgd", {"learning_rate": 0.1}, {}),
    (
        "sgd, decay",
        SGD,
        {"lr": 0.1, "weight_decay": 0.05},
        "sgd",
        {"learning_rate": 0.1, "weight_decay": 0.05},
        {},
    ),
    ("sgd, clipped by norm", SGD, {"lr": 0.1}, "sgd", {"learning_rate": 0.1}, {"clip_norm": 1.5}),
    ("sgd, clipped by value", SGD, {"lr": 0.1}, "sgd", {"learning_rate": 0.1}, {"clip_value": 0.3}),
    (
        "momentum",
        SGD,
        {"lr": 0.02, "momentum": 0.9},
        "momentum",
        {"learning_rate": 0.02, "momentum": 0.9},
        {},
    ),
    (
        "momentum, decay, clipped by norm",
        SGD,
        {"lr": 0.02, "momentum": 0.8, "weight_decay": 0.1},
        "momentum",
        {"learning_rate": 0.02, "momentum": 0.8, "weight_decay": 0.1},
        {"clip_norm": 1.5},
    ),
    (
        "nesterov",
        SGD,
        {"lr": 0.02, "momentum": 0.9, "nesterov": True},
        "nesterov",
        {"learning_rate": 0.02, "momentum": 0.9},
        {},
    ),
    (
        "nesterov, decay",
        SGD,
        {"lr": 0.02, "momentum": 0.7, "nesterov": True, "weight_decay": 0.1},
        "nesterov",
        {"learning_rate": 0.02, "momentum": 0.7, "weight_decay": 0.1},
        {},
    ),
    ("adagrad", torch.optim.Adagrad, {"lr": 0.1}, "adagrad", {"learning_rate": 0.1}, {}),
    (
        "adagrad, decay, initial sum",
        torch.optim.Adagrad,
        {"lr": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.2, "eps": 1e-6},
        "adagrad",
        {"learning_rate": 0.1, "weight_decay": 0.1, "initial_sum": 0.2, "epsilon": 1e-6},
        {},
    ),
    ("rmsprop", torch.optim.RMSprop, {"lr": 0.01}, "rmsprop", {"learning_rate": 0.01}, {}),
    (
        "rmsprop, centered, momentum, decay",
        torch.optim.RMSprop,
        {"lr": 0.01, "alpha": 0.9, "momentum": 0.5, "centered": True, "weight_decay": 0.1, "eps": 1e-4},
        "rmsprop",
        {
            "learning_rate": 0.01,
            "decay": 0.9,
            "momentum": 0.5,
            "centered": True,
            "weight_decay": 0.1,
            "epsilon": 1e-4,
        },
        {},
    ),
    ("adam", ADAM, {"lr": 0.05}, "adam", {"learning_rate": 0.05}, {}),
    (
        "adam, decay, clipped by norm",
        ADAM,
        {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1},
        "adam",
        {"learning_rate": 0.05, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3, "weight_decay": 0.1},
        {"clip_norm": 1.5},
    ),
    (
        "adamw",
        torch.optim.AdamW,
        {"lr": 0.05, "weight_decay": 0.1},
        "adamw",
        {"learning_rate": 0.05, "weight_decay": 0.1},
        {},
    ),
    (
        "adamw, defaults, clipped by value",
        torch.optim.AdamW,
        {"lr": 0.01},
        "adamw",
        {"learning_rate": 0.01},
        {"clip_value": 0.3},
    ),
]


def record_optimizer(kind, options, clip):
    w = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    optimizer = kind([w], **options)
    kept = []
    for step in range(1, max(KEPT_STEPS) + 1):
        if step == RATE_CHANGE["first_step"]:
            optimizer.param_groups[0]["lr"] *= RATE_CHANGE["factor"]
        w.grad = torch.from_numpy(gradient(w.detach().numpy(), step))
        if "clip_norm" in clip:
            torch.nn.utils.clip_grad_norm_([w], clip["clip_norm"])
        if "clip_value" in clip:
            torch.nn.utils.clip_grad_value_([w], clip["clip_value"])
        optimizer.step()
        if step in KEPT_STEPS:
            kept.append(w.detach().tolist())
    return kept


S = torch.optim.lr_scheduler
# name, PyTorch's scheduler from an optimizer, distbp's options
SCHEDULES = [
    ("constant", lambda o: S.ConstantLR(o, factor=1.0), {"type": "constant"}),
    ("step", lambda o: S.StepLR(o, 7, 0.3), {"type": "step", "every_steps": 7, "factor": 0.3}),
    ("step, epochs", lambda o: S.StepLR(o, 10, 0.5), {"type": "step", "every_epochs": 1, "factor": 0.5}),
    (
        "exponential",
        lambda o: S.ExponentialLR(o, 0.95),
        {"type": "exponential", "every_steps": 1, "factor": 0.95},
    ),
    (
        "polynomial",
        lambda o: S.PolynomialLR(o, 25, power=2.0),
        {"type": "polynomial", "duration_steps": 25, "power": 2.0},
    ),
    (
        "polynomial, whole job",
        lambda o: S.PolynomialLR(o, 40),
        {"type": "polynomial"},
    ),
    (
        "cosine",
        lambda o: S.CosineAnnealingLR(o, 40, eta_min=0.01),
        {"type": "cosine", "minimum_rate": 0.01},
    ),
    (
        "cosine, restarts",
        lambda o: S.CosineAnnealingWarmRestarts(o, 12),
        {"type": "cosine", "period_steps": 12, "restarts": True},
    ),
    (
        "cosine, growing restarts",
        lambda o: S.CosineAnnealingWarmRestarts(o, 5, T_mult=2, eta_min=0.001),
        {
            "type": "cosine",
            "period_epochs": 0.5,
            "restarts": True,
            "period_growth": 2,
            "minimum_rate": 0.001,
        },
    ),
    (
        "warm-up",
        lambda o: S.LinearLR(o, 1 / 3, total_iters=8),
        {"type": "warm_up", "warmup_steps": 8},
    ),
    (
        "warm-up, then cosine",
        lambda o: S.SequentialLR(
            o, [S.LinearLR(o, 0.1, total_iters=10), S.CosineAnnealingLR(o, 30)], milestones=[10]
        ),
        {"type": "warm_up", "warmup_epochs": 1, "start_factor": 0.1, "then": {"type": "cosine"}},
    ),
    (
        "one cycle",
        lambda o: S.OneCycleLR(o, max_lr=0.2, total_steps=40, cycle_momentum=False),
        {"type": "one_cycle"},
    ),
    (
        "one cycle, linear",
        lambda o: S.OneCycleLR(
            o,
            max_lr=0.2,
            total_steps=40,
            pct_start=0.4,
            anneal_strategy="linear",
            div_factor=10,
            final_div_factor=100,
            cycle_momentum=False,
        ),
        {
            "type": "one_cycle",
            "duration_epochs": 4,
            "rising": 0.4,
            "start_divisor": 10,
            "final_divisor": 100,
            "shape": "linear",
        },
    ),
]

METRICS = [
    1.0,
    0.9,
    0.9,
    0.95,
    0.89995,
    0.92,
    0.7,
    0.71,
    0.72,
    0.73,
    0.74,
    0.75,
    0.76,
    0.6,
    0.6,
    0.6,
    0.6,
    0.6,
]
METRICS += [-0.5, -0.50001, -0.6, float("nan"), 0.0, 0.0, 0.0, 0.0, -0.601, -0.61, -0.61, -0.61, -0.61, -0.61]
PLATEAUS = [
    ({"patience": 2}, {"patience": 2}),
    (
        {"patience": 1, "factor": 0.5, "cooldown": 2, "min_lr": 0.02},
        {"patience": 1, "factor": 0.5, "cooldown": 2, "minimum_rate": 0.02},
    ),
    (
        {"patience": 1, "mode": "max", "threshold": 0.01, "threshold_mode": "abs", "factor": 0.3},
        {"patience": 1, "mode": "max", "threshold": 0.01, "threshold_mode": "absolute", "factor": 0.3},
    ),
    (
        {"patience": 0, "mode": "max", "threshold": 0.01, "factor": 0.3, "eps": 1e-3},
        {"patience": 0, "mode": "max", "threshold": 0.01, "factor": 0.3, "minimum_change": 1e-3},
    ),
]


def new_optimizer():
    return SGD([torch.zeros(1, requires_grad=True)], lr=0.2)


def record_schedule(make):
    optimizer = new_optimizer()
    scheduler = make(optimizer)
    rates = []
    for step in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < 39:
            scheduler.step()
    return rates


def record_plateau(options):
    optimizer = new_optimizer()
    scheduler = S.ReduceLROnPlateau(optimizer, **options)
    rates = []
    for metric in METRICS:
        scheduler.step(metric)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


if __name__ == "__main__":
    np.seterr(all="raise")
    record = {
        "torch": torch.__version__,
        "steps": KEPT_STEPS,
        "optimizers": [
            {
                "name": name,
                "type": ours,
                "options": options,
                "clip": clip,
                "weights": record_optimizer(kind, theirs, clip),
            }
            for name, kind, theirs, ours, options, clip in OPTIMIZERS
        ],
        "schedules": {
            "base_rate": 0.2,
            "steps_per_epoch": 10,
            "total_steps": 40,
            "cases": [
                {"name": name, "options": ours, "rates": record_schedule(make)}
                for name, make, ours in SCHEDULES
            ],
        },
        "plateaus": {
            "base_rate": 0.2,
            "metrics": METRICS,
            "cases": [{"options": ours, "rates": record_plateau(theirs)} for theirs, ours in PLATEAUS],
        },
    }
    # One case a line: small, and a changed number shows as one changed line.
    text = json.dumps(record).replace('{"name"', '\n{"name"').replace('{"options"', '\n{"options"')
    print(text)
