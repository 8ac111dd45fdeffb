"""Records what PyTorch's convolutions, pooling and normalization of channels compute, for tests that need no
PyTorch.

    python tests/golden/record_torch_convolution.py > tests/golden/torch_convolution.json

Needs torch (2.13 made the file here). Everything is float64: parameters, inputs and a gradient of the outputs
are drawn here; then the outputs and the gradient of every tensor. Sequences are recorded as PyTorch has them,
(rows, channels, steps).
"""

import json

import torch

ROWS = 2


def drawn(shape):
    """Normal numbers with few digits."""
    return torch.randn(shape, dtype=torch.float64).mul(8).round().div(8)


def convolution(shape, filters, kernel_size, **options):
    kind = torch.nn.Conv1d if len(shape) == 2 else torch.nn.Conv2d
    layer = kind(shape[0], filters, kernel_size, dtype=torch.float64, **options)
    fields = {"filters": filters, "kernel_size": kernel_size, **options}
    return record(f"conv{len(shape) - 1}d", layer, shape, fields)


def pool(kind, shape, kernel_size, **options):
    axes = len(shape) - 1
    layer = getattr(torch.nn, f"{'Max' if kind == 'max' else 'Avg'}Pool{axes}d")(kernel_size, **options)
    return record(f"{kind}_pool{axes}d", layer, shape, {"kernel_size": kernel_size, **options})


def record(kind, layer, shape, options):
    for parameter in layer.parameters():
        parameter.data.copy_(drawn(parameter.shape) * 0.75)
    x = drawn((ROWS, *shape)).requires_grad_()
    outputs = layer(x)
    dy = drawn(outputs.shape)
    outputs.backward(dy)
    return {
        "type": kind,
        "options": options,
        "x": x.tolist(),
        "dy": dy.tolist(),
        "outputs": outputs.tolist(),
        "dx": x.grad.tolist(),
        "parameters": [p.tolist() for p in layer.parameters()],
        "gradients": [p.grad.tolist() for p in layer.parameters()],
    }


AVERAGE = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
torch.manual_seed(0)
CASES = [
    convolution((2, 5, 6), 3, 3, padding=1),
    convolution((4, 6, 5), 6, (3, 2), stride=(2, 1), padding=(2, 0), dilation=(1, 2), groups=2),
    convolution((3, 5, 5), 2, 4, padding="same"),
    convolution((3, 7), 4, 3, padding=1),
    convolution((4, 9), 2, 2, stride=2, padding=2, dilation=3, groups=2),
    convolution((2, 6), 17, 4, padding="same"),
    pool("max", (2, 6, 5), 3, stride=2, padding=1),
    pool("average", (2, 6, 5), (2, 3), stride=1, padding=(1, 0)),
    pool("max", (3, 7), 3, stride=2, padding=1),
    pool("average", (3, 7), 2),
    record("batch_normalization", torch.nn.BatchNorm2d(3, dtype=torch.float64), (3, 4, 2), {"axis": 0}),
    record("global_average_pool2d", AVERAGE, (3, 4, 2), {}),
]  # fmt: skip
print(json.dumps(CASES))
