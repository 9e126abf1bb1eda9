"""A network of one's own: convolutions on digits of 8 x 8 pixels, beside mixtures.

scikit-learn's digits, split 70/30, have 17 shades, spread uniformly over the width of a shade; bits
per dimension are those of the spread values, on the same test rows for all. The convolutional
network goes on N(0, I), the default one and none on the best mixture. Filling in is judged on the
lower half of test digits given the upper one: how often a nearest neighbour classifier, fitted to
the training digits, reads the completed digit as the one it was.

    python docs/benchmarks/digits.py [--steps 2000] [method ...]
"""

import argparse
import math
import os
import platform
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from density import Scaled
from records import keep_record, read_records
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from skdiffusion import ScoreSDE

RESULTS = Path(__file__).parent / "results" / "digits.jsonl"
SIDE, N_SCORED, N_FILLED = 8, 540, 100


class Convolutions(nn.Module):
    """Residual blocks on an image, told the noise level."""

    def __init__(self, n_features, generator, width=32, n_blocks=3):
        super().__init__()
        side = math.isqrt(n_features)
        self.shape = side, side
        # What the base expects of the noise, the noisy image, and where a pixel lies.
        rows = torch.linspace(-1, 1, side)
        self.register_buffer("places", torch.stack(torch.meshgrid(rows, rows, indexing="ij")))
        self.enter = nn.Conv2d(4, width, 3, padding=1)
        self.level = nn.Linear(8, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
                nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(n_blocks)
        )  # fmt: skip
        self.leave = nn.Conv2d(width, 1, 3, padding=1)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.leave.weight)

    def forward(self, x, log_s, base_noise, condition=None):
        images = [v.reshape(-1, 1, *self.shape) for v in (x, base_noise)]
        places = self.places.to(x.dtype).expand(len(x), -1, -1, -1)
        hidden = self.enter(torch.cat([*images, places], 1))
        waves = log_s.reshape(-1, 1) * torch.tensor([0.25, 0.5, 1.0, 2.0]).to(x)
        level = self.level(torch.cat([waves.sin(), waves.cos()], 1))[:, :, None, None]
        for block in self.blocks:
            hidden = hidden + block(hidden + level)
        return self.leave(nn.functional.silu(hidden)).flatten(1)


def methods(n_steps):
    """Return what makes the estimators, by name."""
    learns = {"max_iter": n_steps, "random_state": 0}
    return {
        "convolutions on N(0, I)": lambda: ScoreSDE(base=None, network=Convolutions, **learns),
        "convolutions on the mixture": lambda: ScoreSDE(
            base="mixture", marginals=None, network=Convolutions, **learns
        ),
        "default network on N(0, I)": lambda: ScoreSDE(base=None, **learns),
        "mixture": lambda: ScoreSDE(base="mixture", max_iter=0, random_state=0),
        "chain": lambda: ScoreSDE(base="chain", max_iter=0, random_state=0),
        "sklearn's GaussianMixture": lambda: Scaled(
            GaussianMixture(10, reg_covar=1e-2, random_state=0)
        ),
    }


def read_as(classifier, model, test, labels):
    """Share of digits that are read right after their lower half was filled in."""
    rows = test[:N_FILLED].copy()
    rows[:, SIDE * SIDE // 2 :] = np.nan
    filled = model.impute(rows, random_state=0)
    return float((classifier.predict(filled) == labels[:N_FILLED]).mean())


def run(n_steps, names):
    """Fit and judge the methods."""
    X, y = load_digits(return_X_y=True)
    X = X + np.random.default_rng(7).random(X.shape)
    train, test, seen, hidden = train_test_split(X, y, test_size=0.3, random_state=0)
    classifier = KNeighborsClassifier(3).fit(train, seen)
    for label, make in methods(n_steps).items():
        if names and label not in names:
            continue
        begin = time.process_time()
        model = make().fit(train)
        fitted = time.process_time()
        bits = -model.score_samples(test[:N_SCORED]) / X.shape[1] / math.log(2)
        scored = time.process_time()
        result = {
            "model": label,
            "bits": round(float(bits.mean()), 4),
            "standard_error": round(float(bits.std() / len(bits) ** 0.5), 4),
            "fit_cpu_seconds": round(fitted - begin, 1),
            "score_cpu_seconds": round(scored - fitted, 1),
            "steps": getattr(model, "n_iter_", None),
        }
        if hasattr(model, "impute"):
            result["read"] = read_as(classifier, model, test, hidden)
            result["kept"] = model.base_
        result["untouched"] = float(
            (classifier.predict(test[:N_FILLED]) == hidden[:N_FILLED]).mean()
        )
        keep_record(result, RESULTS)


def write_table():
    """Write the page of all results."""
    records = {r["model"]: r for r in read_records(RESULTS)}
    lines = [
        f"| {label} | {r['bits']:.3f} ± {r['standard_error']:.3f} | "
        + (f"{r['read']:.2f}" if "read" in r else "-")
        + f" | {r['fit_cpu_seconds']:.0f} + {r['score_cpu_seconds']:.0f} | {r.get('kept', '')} |"
        for label, r in sorted(records.items(), key=lambda item: item[1]["bits"])
    ]
    untouched = next(iter(records.values()))["untouched"]
    text = [
        "# Digits of 8 x 8 pixels",
        "",
        "Bits per dimension of 540 test digits ± their standard error, lower is better; share of "
        "100 test digits whose lower half was filled in, given the upper one, that a nearest "
        f"neighbour classifier reads right (of untouched digits {untouched:.2f}); CPU-seconds to "
        "fit + to score.",
        "",
        "| model | bits per dimension | read right | seconds | kept |",
        "|---|---|---|---|---|",
        *lines,
        "",
        f"Written by `docs/benchmarks/digits.py` on {time.strftime('%Y-%m-%d')}: "
        f"{platform.machine()}, one thread, torch {torch.__version__}. Other work kept the machine "
        "busy meanwhile.",
    ]
    RESULTS.with_suffix(".md").write_text("\n".join(text) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*")
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    run(options.steps, options.methods)
    write_table()


if __name__ == "__main__":
    main()
