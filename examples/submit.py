"""Submit a job to a service, watch it, and predict: start `distbp serve` in another terminal, then
python examples/submit.py
"""

from __future__ import annotations

from pathlib import Path

from sklearn.datasets import load_digits

import distbp


def main() -> None:
    job = distbp.TrainingJob.from_file(Path(__file__).with_name("digits.yaml"))
    handle = distbp.submit(job)
    result = handle.wait(progress=True)
    print(f"{handle.id} {result.status}: test accuracy {result.metrics['test_accuracy']:.3f}")

    metrics = handle.metrics()
    best = int(metrics["validation_loss"].argmin())
    lowest, step = metrics["validation_loss"][best], metrics["step"][best]
    print(f"the lowest validation loss was {lowest:.4f}, at step {step}")

    digits = load_digits()
    model = handle.model()
    print(f"the model sees {model.predict(digits.data[:10])}, and the digits are {digits.target[:10]}")


if __name__ == "__main__":
    main()
