"""What `make demo` runs: train on real images, show where everything lies, predict from the saved model.

python examples/demo.py [--workers N ...] [--output DIR]

With several numbers after --workers, the same job is trained once with each, and the SHA-256 of the weights
is compared: the number of workers changes the time, never the result.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import numpy as np

import distbp
from distbp.data.formats import Digits
from distbp.run import events
from distbp.run.progress import never_silent

JOB = Path(__file__).resolve().parent / "digits.yaml"
GOAL = 0.97
SHADES = " .:-=+*#%@"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 0], help="default: 2 0")
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="default: runs/demo")
    options = parser.parse_args()
    job = distbp.TrainingJob.from_file(JOB)
    results = []
    for workers in options.workers:
        print(f"\nTraining {JOB.name} {in_words(workers)}:", flush=True)
        folder = options.output / f"workers-{workers}"
        if folder.exists():  # of an earlier demo
            shutil.rmtree(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with never_silent(sys.stdout, report) as listener:  # Ray and the first compilation take seconds
            results.append(distbp.train(job, output=folder, workers=workers, listener=listener))
    result = results[0]
    accuracy = result.metrics["test_accuracy"]
    print(f"\nTest accuracy: {accuracy:.4f} on 270 images that were never trained on")
    print(f"Model:         {result.path / 'model'}")
    print(f"Curves:        {result.path / 'curves.svg'}")
    predict(result.path / "model")
    return int(not same_weights(results) or accuracy < GOAL)


def in_words(workers: int) -> str:
    if workers == 0:
        return "in this process"
    return f"on {workers} Ray worker{'s' if workers > 1 else ''} and a parameter server"


def report(event: events.Event) -> None:
    """A line every ten epochs."""
    if isinstance(event, events.EpochEnded) and event.epoch % 10 == 0:
        values = {name: event.metrics[name] for name in ("train_loss", "validation_accuracy")}
        shown = "  ".join(f"{name} {value:.4f}" for name, value in values.items())
        print(f"  epoch {event.epoch:>2}  {shown}", flush=True)


def predict(folder: Path) -> None:
    """Loads the saved model and shows it three test images."""
    model = distbp.load_model(folder)
    images = Digits(split="test", rows=(0, 3)).open(Path()).inputs
    labels, chances = model.predict(images), model.predict_proba(images)
    print("\nThe saved model says:\n")
    print(
        "   ".join(
            f"{label} ({chance.max():.1%})".ljust(16) for label, chance in zip(labels, chances, strict=True)
        )
    )
    shades = np.array(list(SHADES))
    for row in range(8):
        print(
            "   ".join("".join(shades[image[row] * 9 // 16].repeat(2)) for image in images.reshape(-1, 8, 8))
        )


def same_weights(results: list[distbp.Result]) -> bool:
    """Prints and compares the digests of the weights."""
    print()
    for result in results:
        print(f"SHA-256 of the weights, {in_words(result.workers)}: {result.params_sha256}")
    same = len({result.params_sha256 for result in results}) == 1
    if len(results) > 1:
        print("They are the same." if same else "They DIFFER: this is a bug; please report it.")
    return same


if __name__ == "__main__":
    sys.exit(main())
