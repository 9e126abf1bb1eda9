"""What each part of the trees on a state space gives.

The state space of each series of ``imputation.py`` (a year of weather, shipped; Beijing in
``--data``) is fitted once, and trees are fitted to it as ``CSDIImputer`` does, whole and with
parts taken away:

* *location*: trees move the mean, the deviation stays;
* *location and scale*: what the imputer uses;
* *of the column alone*: without the means of the other columns;
* *halves of cells*: residuals of cells that trees may have seen at another time.

Cells are those that ``imputation.py`` scores. The CRPS is that of normal laws with the mean and
deviation of each variant, in units of the mapped columns, so that nothing is drawn, and so is the
coverage of their central 90 % band; the imputer itself learns the shape of what is left. The table
goes to ``results/corrections.md``.

    python docs/benchmarks/corrections.py [--data FOLDER] [--seeds 0 1 2]
"""

import argparse
import warnings
from pathlib import Path
from statistics import median

import numpy as np
import torch
from imputation import series_problem
from records import as_text, versions

from skdiffusion import CSDIImputer
from skdiffusion.diffusion.statespace.judge import normal_crps
from skdiffusion.estimators.imputation import _trees
from skdiffusion.estimators.imputation._fitting import Windows
from skdiffusion.training.masking import block_targets

RESULTS = Path(__file__).parent / "results" / "corrections.md"
VARIANTS = (
    "state space",
    "location",
    "location and scale",
    "of the column alone",
    "halves of cells",
)
# Inputs before the means of all columns, and the squared mean of the root of the size of a standard
# normal variable, 2^(1/4) Gamma(3/4) / Gamma(1/2).
OWN, SIZE = 11, 0.8222**2


def lessons(base, series, share_cells):
    """What trees learn from, and the half of each lesson."""
    starts = series.regular_starts(series.length)
    windows = Windows(series, starts, starts[:0])
    generator = torch.Generator().manual_seed(0)
    inputs, residual, even = _trees._lessons(base, windows, block_targets, generator)
    if share_cells:
        even = np.random.default_rng(0).random(len(even)) < 0.5
    return inputs, residual, even


def foretold(trees, inputs):
    """Location and scale of cells."""
    return trees.location.predict(inputs), trees.scale_of(inputs)


def answers(imputer, problem):
    """CRPS and coverage of every section under every variant."""
    base, columns = imputer._model.denoiser.base, imputer._columns
    read = lambda X: imputer._reader.windows(imputer._read(X, None), columns)  # noqa: E731
    series, n_features = read(problem.train), problem.train.shape[1]
    plain, mixed = (lessons(base, series, share) for share in (False, True))
    trees = _trees.learnt(*plain, n_features)
    own = _trees.learnt(plain[0][:, :OWN], *plain[1:], n_features)
    leaky = _trees.learnt(*mixed, n_features)
    truth = torch.as_tensor(columns.forward(problem.truth.astype(float)))
    for section, hidden in problem.sections.items():
        row, column = map(torch.as_tensor, np.nonzero(hidden))
        inputs, mean, sd = _trees.seen_from(base.moments(series), series, row, column)
        u = (truth[row, column] - mean) / sd
        told = {
            "state space": (0.0, np.full(len(row), SIZE)),
            "location": (trees.location.predict(inputs), np.full(len(row), SIZE)),
            "location and scale": foretold(trees, inputs),
            "of the column alone": foretold(own, inputs[:, :OWN]),
            "halves of cells": foretold(leaky, inputs),
        }
        for name, (location, scale) in told.items():
            error, spread = u - torch.as_tensor(location), torch.as_tensor(scale) / SIZE
            crps = float(normal_crps(sd * error, sd * spread).mean())
            yield section, name, crps, float((error.abs() < 1.645 * spread).double().mean())


def page(found, seeds):
    """Markdown page of the results."""
    lines = ["# Trees on a state space: what each part gives", ""]
    lines += [__doc__.split("\n\n", 1)[1].split("\n\n    python")[0], ""]
    for dataset, section in dict.fromkeys(key[:2] for key in found):
        lines += [f"## {dataset.capitalize()}: {section}", ""]
        lines += ["| variant | CRPS | to the state space | 90 % band |", "|---|---|---|---|"]
        base = [crps for crps, _ in found[dataset, section, VARIANTS[0]]]
        for name in VARIANTS:
            crps, inside = zip(*found[dataset, section, name], strict=True)
            ratio = median(a / b for a, b in zip(crps, base, strict=True))
            lines.append(f"| {name} | {median(crps):.4f} | {ratio:.3f} | {median(inside):.3f} |")
        lines.append("")
    used = as_text(versions("numpy", "torch", "scikit-learn"))
    lines.append(f"Seeds {seeds}, medians. Made by `docs/benchmarks/corrections.py` with {used}.")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of the Beijing file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    found = {}
    for dataset in ("weather", "beijing") if options.data else ("weather",):
        for seed in options.seeds:
            problem = series_problem(dataset, options.data, seed)
            imputer = CSDIImputer(method="gaussian", window_length=24, random_state=0)
            imputer.fit(problem.train)
            for section, name, *values in answers(imputer, problem):
                found.setdefault((dataset, section, name), []).append(values)
                print(dataset, seed, section, name, *values, flush=True)
            RESULTS.write_text(page(found, options.seeds), encoding="utf-8")


if __name__ == "__main__":
    main()
