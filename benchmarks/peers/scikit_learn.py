"""scikit-learn's MLPClassifier, or MLPRegressor for values: one `partial_fit` an epoch, no input checks."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.common import Net, main
from benchmarks.rows import Row


def build(row: Row) -> Net:
    """The net of a row.

    partial_fit shuffles the rows and cuts the batches itself, so the order it is given only serves to
    choose the rows of the epoch. Its first weights are its own (Glorot uniform, a smaller limit for the
    sigmoid).
    """
    import numpy as np
    import sklearn
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    from benchmarks.synthetic import PROBE_ROWS, samples

    sklearn.set_config(assume_finite=True)
    inputs, labels = samples(row)
    values, binary = row.loss == "mse", row.loss == "sigmoid_cross_entropy"
    labels = labels[:, 0] if values else (labels[:, 0].astype(np.int64) if binary else labels)
    classes = {} if values else {"classes": np.arange(max(2, row.sizes[-1]))}
    used = row.steps_per_epoch * row.batch
    net = (MLPRegressor if values else MLPClassifier)(
        hidden_layer_sizes=row.sizes[1:-1],
        activation={"sigmoid": "logistic", "relu": "relu"}[row.activation],
        solver=row.optimizer,
        alpha=0.0,
        batch_size=row.batch,
        learning_rate_init=row.learning_rate,
        momentum=0.0,
        nesterovs_momentum=False,
        shuffle=True,
        random_state=23,
    )

    def train(order: Any) -> None:
        net.partial_fit(inputs[:used], labels[:used], **classes)

    def loss() -> float:
        if not hasattr(net, "coefs_"):
            return float("nan")
        if values:
            return float(np.square(net.predict(inputs[:PROBE_ROWS]) - labels[:PROBE_ROWS]).mean())
        probabilities = net.predict_proba(inputs[:PROBE_ROWS])
        return float(-np.log(probabilities[np.arange(PROBE_ROWS), labels[:PROBE_ROWS]] + 1e-30).mean())

    return Net(train, loss)


if __name__ == "__main__":
    main(build)
