"""Records what PyTorch's multi-head attention computes, for tests that need no PyTorch.

    python tests/golden/record_torch_attention.py > tests/golden/torch_attention.json

Needs torch (2.13 made the file here). Everything is float64: an input attends to itself, with weights, inputs
and a gradient of the outputs drawn here; then the outputs and the gradient of every tensor. The last case is
an encoder layer, `torch.nn.TransformerEncoderLayer`, normalized before each part and without dropout.
"""

import json

import torch

CASES = [  # rows, steps, features, heads
    (2, 4, 6, 2),
    (3, 5, 3, 1),
    (1, 3, 3, 3),
    (2, 1, 4, 2),
]
WIDE = 5  # units of the encoder layer's hidden layer


def drawn(shape):
    """Normal numbers with few digits."""
    return torch.randn(shape, dtype=torch.float64).mul(8).round().div(8)


def record(layer, run, shape):
    for parameter in layer.parameters():
        parameter.data.copy_(drawn(parameter.shape) * 0.75)
    x = drawn(shape).requires_grad_()
    outputs = run(x)
    dy = drawn(outputs.shape)
    outputs.backward(dy)
    return {
        "x": x.tolist(),
        "dy": dy.tolist(),
        "outputs": outputs.tolist(),
        "dx": x.grad.tolist(),
        "parameters": {name: p.tolist() for name, p in layer.named_parameters()},
        "gradients": {name: p.grad.tolist() for name, p in layer.named_parameters()},
    }


def attention(rows, steps, features, heads, causal, bias):
    layer = torch.nn.MultiheadAttention(features, heads, bias=bias, batch_first=True, dtype=torch.float64)
    later = torch.ones(steps, steps, dtype=torch.bool).triu(1) if causal else None
    return {
        "name": f"{steps} steps of {features}, {heads} heads{', causal' * causal}{', no bias' * (not bias)}",
        "options": {"heads": heads, "causal": causal, "bias": bias},
        **record(layer, lambda x: layer(x, x, x, attn_mask=later)[0], (rows, steps, features)),
    }


def encoder(rows, steps, features, heads):
    layer = torch.nn.TransformerEncoderLayer(
        features, heads, WIDE, 0.0, "gelu", batch_first=True, norm_first=True, dtype=torch.float64
    )
    return {"wide": WIDE, "heads": heads, **record(layer, layer, (rows, steps, features))}


if __name__ == "__main__":
    torch.manual_seed(3)
    found = [attention(*case, causal, True) for case in CASES for causal in (False, True)]
    found += [attention(*CASES[0], causal, False) for causal in (False, True)]
    # One case a line: a changed number shows as one changed line.
    text = json.dumps({"torch": torch.__version__, "cases": found, "encoder": encoder(*CASES[0])})
    print(text.replace('{"name"', '\n{"name"').replace('"encoder"', '\n"encoder"'))
