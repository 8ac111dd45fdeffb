"""Records what PyTorch's layers compute that stand in no other file here, for tests that need no PyTorch.

    python tests/golden/record_torch_layers.py > tests/golden/torch_layers.json

Needs torch (2.13 made the file here). Everything is float64: parameters, inputs and a gradient of the outputs
are drawn here; then the outputs and the gradient of every tensor. Ids have no gradient.
"""

import json

import torch
from torch import nn

ROWS, WIDE = 4, torch.float64
ACTIVATIONS = {
    "elu": nn.ELU(), "gelu": nn.GELU(), "leaky_relu": nn.LeakyReLU(), "mish": nn.Mish(), "relu": nn.ReLU(),
    "selu": nn.SELU(), "sigmoid": nn.Sigmoid(), "silu": nn.SiLU(), "softmax": nn.Softmax(-1),
    "softplus": nn.Softplus(), "tanh": nn.Tanh(),
}  # fmt: skip


def drawn(shape):
    """Normal numbers with few digits."""
    return torch.randn(shape, dtype=WIDE).mul(8).round().div(8)


def record(kind, layer, shape, options, entries=0):
    for parameter in layer.parameters():
        parameter.data.copy_(drawn(parameter.shape) * 0.75)
    x = torch.randint(entries, (ROWS, *shape)) if entries else drawn((ROWS, *shape)).requires_grad_()
    outputs = layer(x)
    dy = drawn(outputs.shape)
    outputs.backward(dy)
    return {
        "type": kind,
        "options": options,
        "x": x.tolist(),
        "dy": dy.tolist(),
        "outputs": outputs.tolist(),
        "dx": None if entries else x.grad.tolist(),
        "parameters": [p.tolist() for p in layer.parameters()],
        "gradients": [p.grad.tolist() for p in layer.parameters()],
    }


torch.manual_seed(5)
CASES = [
    record("dense", nn.Linear(5, 3, dtype=WIDE), (5,), {"units": 3}),
    record("dense", nn.Sequential(nn.Linear(3, 7, dtype=WIDE), nn.Tanh()), (3,),
           {"units": 7, "activation": "tanh"}),
    record("dense_steps", nn.Linear(3, 2, dtype=WIDE), (5, 3), {"units": 2}),
    record("embedding", nn.Embedding(6, 3, dtype=WIDE), (5,), {"entries": 6, "size": 3}, 6),
    record("layer_normalization", nn.LayerNorm(5, dtype=WIDE), (5,), {}),
    record("layer_normalization", nn.LayerNorm(3, eps=0.01, dtype=WIDE), (4, 3), {"epsilon": 0.01}),
    record("batch_normalization", nn.BatchNorm1d(3, dtype=WIDE), (3,), {}),
    *(record(name, layer, (2, 3), {}) for name, layer in ACTIVATIONS.items()),
]  # fmt: skip
# One case a line: a changed number shows as one changed line.
print(json.dumps(CASES).replace('{"type"', '\n{"type"'))
