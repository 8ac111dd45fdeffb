"""Records what PyTorch's recurrent layers compute, for tests that need no PyTorch.

    python tests/golden/record_torch_recurrence.py > tests/golden/torch_recurrence.json

Needs torch (2.13 made the file here). Everything is float64: one layer over a few steps, with weights,
inputs and a gradient of the outputs drawn here; then the outputs and the gradient of every tensor. "packed"
are the same layers over rows of different lengths, as packed sequences.
"""

import json

import torch

ROWS, STEPS, FEATURES, UNITS = 2, 4, 3, 2
KINDS = {
    "elman": (torch.nn.RNN, {}, {}),
    "elman, relu": (torch.nn.RNN, {"nonlinearity": "relu"}, {"activation": "relu"}),
    "lstm": (torch.nn.LSTM, {}, {}),
    "gru": (torch.nn.GRU, {}, {}),
}


def drawn(shape):
    """Normal numbers with few digits."""
    return torch.randn(shape, dtype=torch.float64).mul(8).round().div(8)


LENGTHS = [4, 2, 1]


def packed(layer, x):
    """Outputs, 0 past the end of each row, and the last states."""
    rows = torch.nn.utils.rnn.pack_padded_sequence(x, LENGTHS, batch_first=True)
    outputs, state = layer(rows)
    outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True, total_length=STEPS)
    return outputs, state


def record(kind, options, both, every, lengths=False):
    layer = kind(FEATURES, UNITS, batch_first=True, bidirectional=both, dtype=torch.float64, **options)
    for parameter in layer.parameters():
        parameter.data.copy_(drawn(parameter.shape) * 0.75)
    x = drawn((len(LENGTHS) if lengths else ROWS, STEPS, FEATURES)).requires_grad_()
    outputs, state = packed(layer, x) if lengths else layer(x)
    if not every:  # the last state of each direction, forward first
        h = state[0] if isinstance(state, tuple) else state
        outputs = torch.cat(list(h), dim=1)
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


if __name__ == "__main__":
    torch.manual_seed(3)

    def recorded(lengths):
        """One case for each kind, direction and form of the outputs."""
        return [
            {
                "name": f"{name}{', both ways' * both}{', sequences' * every}",
                "type": name.partition(",")[0],
                "options": {**ours, "bidirectional": both, "return_sequences": every},
                **record(kind, theirs, both, every, lengths),
            }
            for name, (kind, theirs, ours) in KINDS.items()
            for both in (False, True)
            for every in (False, True)
        ]

    found = {
        "torch": torch.__version__,
        "units": UNITS,
        "cases": recorded(False),
        "lengths": LENGTHS,
        "packed": recorded(True),
    }
    # One case a line: a changed number shows as one changed line.
    print(json.dumps(found).replace('{"name"', '\n{"name"'))
