"""Alarms of LangevinSampler: planted failures, all of which must warn, and healthy runs.

Needs ``pip install skdiffusion``; about half an hour on one core. Runs are recorded in
``results/langevin_alarms.jsonl`` beside this script, what is recorded is not run again, and the
tables are written to ``results/langevin_alarms.md``. An argument is the number of CPU seconds after
which no further run begins.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import datetime
import math
import platform
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from records import keep_record, read_records
from scipy.stats import beta
from torch import distributions as td

from skdiffusion.datasets import make_gaussian_mixture
from skdiffusion.estimators import LangevinSampler

torch.set_num_threads(1)
RESULTS = Path(__file__).parent / "results" / "langevin_alarms.md"
RECORDS = RESULTS.with_suffix(".jsonl")
N_SEEDS = 10


def alarms(target, n_samples=0, **parameters):
    """What a fit, and the draws asked for, warn of or raise."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            sampler = LangevinSampler(target, **parameters).fit()
            if n_samples:
                sampler.sample(n_samples)
        except FloatingPointError as error:
            return [str(error)]
    return [str(w.message) for w in caught if "only a gradient" not in str(w.message)]


# ------------------------------------------------------------------ densities


def normal(x):
    return -0.5 * x.square().sum(1)


def funnel(x):
    v, rest = x[:, 0], x[:, 1:]
    return -(v**2) / 18 - 0.5 * rest.shape[1] * v - 0.5 * rest.square().sum(1) * v.neg().exp()


def turned_funnel(x):
    """A funnel along the diagonal, by a reflection that exchanges the first axis with it."""
    normal = torch.full((10,), 10**-0.5, dtype=x.dtype)
    normal[0] -= 1
    normal = normal / normal.norm()
    return funnel(x - 2 * (x @ normal)[:, None] * normal)


def two_modes(distance, share=0.25):
    """Normals of deviation 1 at 0 and at a distance along the first feature."""
    return lambda x: torch.logaddexp(
        normal(x) + math.log(share),
        -0.5 * (x[:, 0] - distance) ** 2 - 0.5 * x[:, 1:].square().sum(1) + math.log(1 - share),
    )


def both_sides(x):
    left, right = (-0.5 * (x[:, 0] - m) ** 2 for m in (-8.0, 8.0))
    return torch.logaddexp(left, right + math.log(3)) - 0.5 * x[:, 1:].square().sum(1)


def banana(x):
    return -0.5 * x[:, 0] ** 2 - 2 * (x[:, 1] - x[:, 0] ** 2) ** 2


def cauchy(x):
    return -torch.log1p(x.square()).sum(1)


def cauchy_rays(x):
    return -0.5 * (1 + x.shape[1]) * torch.log1p(x.square().sum(1))


def jump(x):
    return normal(x) - 3.0 * (x[:, 0] > 0.3)


def unidentified(x):
    """Only a sum is known."""
    return -0.5 * (x[:, 0] + x[:, 1] - 1) ** 2 - 0.5 * x[:, 2:].square().sum(1)


def separable(x):
    """Logistic regression without a prior, on classes that a line separates."""
    rows = torch.tensor([[1.0, 1], [2, 1], [-1, 1], [-3, 1]], dtype=x.dtype)
    labels = torch.tensor([1.0, 1, -1, -1], dtype=x.dtype)
    return torch.nn.functional.logsigmoid((x @ rows.T) * labels).sum(1)


def hole(x):
    """Not a number where mass is."""
    return normal(x) + 0 * (1.5 - x[:, 0]).log()


def wall(x):
    return torch.where(x[:, 0] > 0, normal(x), -math.inf)


def lattice(x):
    """Finite at the origin alone."""
    return torch.where((x == 0).all(1), 0.0, -math.inf) + 0 * x.sum(1)


def scaled(factor):
    return lambda x: (normal(x), -x * torch.tensor(factor, dtype=x.dtype))


def swirl(x):
    """A field that is the gradient of nothing."""
    return torch.stack([-x[:, 0] + x[:, 1], -x[:, 1] - 0.5 * x[:, 0]], 1)


def narrow(n, rng, d=2):
    return 0.1 * rng.normal(size=(n, d))


ILL = torch.tensor(np.geomspace(1e-2, 1e2, 20))
RIGHT = torch.tensor([[0.0, 0], [0, 0]])

FAILURES = [
    ("funnel along no axis, local steps", turned_funnel, {"method": "mala", "n_features": 10}),
    ("chains stuck in halves", both_sides, {"method": "mala", "n_features": 2}),
    ("the same, unadjusted", both_sides, {"method": "ula", "n_features": 2}),
    (
        "one mode of two, 30 away",
        two_modes(30.0),
        {"method": "mala", "n_features": 2, "init": narrow},
    ),
    ("one mode of two, trajectories", two_modes(30.0), {"method": "hmc", "n_features": 2}),
    (
        "all starts at one point, two modes",
        two_modes(12.0),
        {"method": "mala", "init": [[0.0, 0.0]]},
    ),
    (
        "constant chain: steps of no length",
        normal,
        {"method": "ula", "step_size": 1e-12, "n_features": 2},
    ),
    ("constant chain: no place but the start", lattice, {"method": "mala", "init": [[0.0, 0.0]]}),
    ("never moved: steps too long", normal, {"method": "mala", "step_size": 1e6, "n_features": 2}),
    ("never moved: trajectories", normal, {"method": "hmc", "step_size": 1e4, "n_features": 2}),
    ("steps too short", normal, {"method": "mala", "step_size": 1e-5, "n_features": 2}),
    ("unadjusted steps too long", normal, {"method": "ula", "step_size": 1.2, "n_features": 2}),
    (
        "unadjusted steps far too long",
        normal,
        {"method": "ula", "step_size": 30.0, "n_features": 2},
    ),
    ("flat", lambda x: 0 * x.sum(1), {"n_features": 2}),
    ("the density for its logarithm", lambda x: normal(x).exp(), {"n_features": 2}),
    ("wrong sign", lambda x: -normal(x), {"n_features": 2}),
    ("only a sum is known", unidentified, {"n_features": 3}),
    ("separable classes without a prior", separable, {"n_features": 2}),
    ("Cauchy", cauchy, {"n_features": 2}),
    ("Cauchy, one feature", cauchy, {"n_features": 1, "method": "mala"}),
    ("Cauchy in every direction", cauchy_rays, {"n_features": 5, "method": "hmc"}),
    ("too few steps", banana, {"method": "mala", "n_steps": 3, "n_features": 2}),
    ("too few steps, tempered", both_sides, {"n_steps": 4, "n_features": 2}),
    (
        "ill-conditioned, unscaled",
        lambda x: -0.5 * (x**2 / ILL).sum(1),
        {"method": "mala", "n_features": 20, "preconditioner": None},
    ),
    ("gradient twice as large", scaled([2.0, 2.0]), {"method": "mala", "n_features": 2}),
    ("gradient of the wrong sign", scaled([-1.0, -1.0]), {"method": "mala", "n_features": 2}),
    ("one wrong derivative of ten", scaled([1.0] * 9 + [0.5]), {"n_features": 10}),
    ("gradient of nothing", swirl, {"method": "ula", "n_features": 2}),
    ("a jump", jump, {"method": "mala", "n_features": 2}),
    ("a jump, unadjusted", jump, {"method": "ula", "n_features": 2}),
    ("not a number where mass is", hole, {"method": "mala", "n_features": 2}),
    ("a wall through the mass", wall, {"method": "mala", "n_features": 2}),
    ("a wall, defaults", wall, {"n_features": 2}),
    ("not finite at any start", lambda x: normal(x) * math.nan, {"n_features": 2}),
    (
        "few chains in different modes",
        both_sides,
        {"method": "mala", "n_features": 2, "n_chains": 4, "n_samples": 2000},
    ),
]


# ------------------------------------------------------------------ healthy runs


def logistic(x):
    """Posterior of a regression on 100 simulated rows, with a prior."""
    return torch.nn.functional.logsigmoid((x @ ROWS.T) * LABELS).sum(1) - 0.5 * x.square().sum(1)


def student(degrees):
    return lambda x: -0.5 * (degrees + 1) * torch.log1p(x.square() / degrees).sum(1)


def poisson(x):
    rate = x @ ROWS.T * 0.3 + 1
    return (COUNTS * rate - rate.exp()).sum(1) - 0.5 * x.square().sum(1)


RNG = np.random.default_rng(0)
ROWS = torch.tensor(np.column_stack([np.ones(100), RNG.normal(size=(100, 3))]))
TRUTH = torch.tensor([0.5, 1.0, -1.0, 0.0], dtype=torch.float64)
LABELS = torch.tensor(
    np.where(RNG.uniform(size=100) < torch.sigmoid(ROWS @ TRUTH).numpy(), 1.0, -1.0)
)
COUNTS = torch.tensor(RNG.poisson((ROWS @ TRUTH * 0.3 + 1).exp().numpy()).astype(float))
ROTATION = torch.tensor(np.linalg.qr(RNG.normal(size=(10, 10)))[0])


def rotated(condition):
    variances = torch.tensor(np.geomspace(1 / condition, 1, 10))
    precision = ROTATION @ torch.diag(1 / variances) @ ROTATION.T
    return lambda x: -0.5 * ((x @ precision) * x).sum(1)


HEALTHY = [
    ("normal, 1 feature", normal, {"n_features": 1}),
    ("normal, 2 features", normal, {"n_features": 2, "method": "mala"}),
    ("normal, 10 features", normal, {"n_features": 10, "method": "hmc"}),
    ("normal, 50 features", normal, {"n_features": 50, "method": "mala"}),
    ("normal, defaults, 10 features", normal, {"n_features": 10}),
    ("normal, unadjusted", normal, {"n_features": 5, "method": "ula"}),
    ("normal, underdamped", normal, {"n_features": 5, "method": "underdamped"}),
    ("gradient alone", lambda x: -x, {"n_features": 3, "method": "ula"}),
    ("starts at one point", normal, {"init": [[1.0, 2.0]], "method": "mala"}),
    ("condition 100", rotated(100), {"n_features": 10, "method": "mala"}),
    ("condition 100, trajectories", rotated(100), {"n_features": 10, "method": "hmc"}),
    ("condition 10⁴", rotated(1e4), {"n_features": 10, "method": "hmc"}),
    ("two modes", both_sides, {"n_features": 2}),
    ("banana", banana, {"n_features": 2}),
    ("funnel", funnel, {"n_features": 10, "method": "hmc"}),
    ("three normals", make_gaussian_mixture(3, random_state=0), {}),
    ("150 normals", make_gaussian_mixture(150, random_state=0), {}),
    ("t, 5 degrees", student(5.0), {"n_features": 3, "method": "mala"}),
    ("t, 5 degrees, trajectories", student(5.0), {"n_features": 10, "method": "hmc"}),
    ("t, 8 degrees, defaults", student(8.0), {"n_features": 2}),
    ("Laplace", lambda x: -x.abs().sum(1), {"n_features": 3, "method": "hmc"}),
    ("logistic regression", logistic, {"n_features": 4, "method": "mala"}),
    ("logistic regression, trajectories", logistic, {"n_features": 4, "method": "hmc"}),
    ("logistic regression, defaults", logistic, {"n_features": 4}),
    ("Poisson regression", poisson, {"n_features": 4, "method": "hmc"}),
    ("gamma", td.Gamma(torch.tensor(3.0).double(), torch.tensor(1.0).double()), {"method": "mala"}),
    ("uniform, bounds", lambda x: 0 * x.sum(1), {"bounds": [(0, 1), (-2, 3)], "method": "mala"}),
    ("Dirichlet", td.Dirichlet(torch.tensor([2.0, 3, 4]).double()), {"method": "hmc"}),
    ("half normal, bounds", normal, {"bounds": [(0, None)] * 2, "method": "hmc"}),
    ("ordered", normal, {"bounds": "ordered", "n_features": 3, "method": "mala"}),
    (
        "few chains, thinned",
        normal,
        {"n_features": 2, "method": "mala", "n_chains": 4, "thin": 5, "n_samples": 2000},
    ),
]


GROUPS = {"failure": FAILURES, "healthy": HEALTHY}


def planned():
    """Kind, name and seed of every run, the planted failures first."""
    for name, _, parameters in FAILURES:
        yield "failure", name, parameters.get("random_state", 0)
    for seed in range(N_SEEDS):
        for name, _, _ in HEALTHY:
            yield "healthy", name, seed


def run_missing(seconds):
    """Runs that have no record yet, as many as begin within some CPU seconds."""
    known = {(r["kind"], r["name"], r["seed"]) for r in read_records(RECORDS)}
    cases = {(kind, c[0]): c for kind, group in GROUPS.items() for c in group}
    for kind, name, seed in planned():
        if time.process_time() > seconds:
            return
        if (kind, name, seed) in known:
            continue
        _, target, parameters = cases[kind, name]
        start = time.process_time()
        found = alarms(target, **{"random_state": seed, **parameters})
        record = {"kind": kind, "name": name, "seed": seed, "alarms": len(found)}
        record |= {"first": found[0][:150] if found else ""}
        keep_record(record | {"seconds": round(time.process_time() - start, 2)}, RECORDS)


def page(records):
    """Both tables."""
    planted = [r for r in records if r["kind"] == "failure"]
    healthy = [r for r in records if r["kind"] == "healthy"]
    yield from ["# Alarms of LangevinSampler", "", "## Planted failures", ""]
    yield "Every one must warn or raise; the beginning of the first message is shown."
    yield from ["", "| failure | alarms | first one |", "|---|---|---|"]
    for r in planted:
        first = r["first"].replace("|", "\\|") or "**none**"
        yield f"| {r['name']} | {r['alarms']} | {first} |"
    yield from ["", f"{sum(r['alarms'] > 0 for r in planted)} of {len(planted)} noticed.", ""]
    yield from [
        "## Healthy runs",
        "",
        "Other seeds and targets; none of these runs should warn.",
        "",
    ]
    yield from [
        "| target | method | runs | alarms | s a fit | first one |",
        "|---|---|---|---|---|---|",
    ]
    for name, _, parameters in HEALTHY:
        runs = [r for r in healthy if r["name"] == name]
        false = [r["first"][:110].replace("|", "\\|") for r in runs if r["alarms"]]
        seconds = np.mean([r["seconds"] for r in runs]) if runs else math.nan
        method = parameters.get("method", "auto")
        text = (false or [""])[0]
        yield f"| {name} | {method} | {len(runs)} | {len(false)} | {seconds:.1f} | {text} |"
    n, n_false = len(healthy), sum(r["alarms"] > 0 for r in healthy)
    low = beta.ppf(0.05, n_false, n - n_false + 1) if n_false else 0.0
    high = beta.ppf(0.95, n_false + 1, n - n_false)
    yield from ["", f"{n_false} of {n} runs warned, {n_false / max(n, 1):.1%}; of all such runs"]
    yield f"between {low:.1%} and {high:.1%} do (90 % interval of Clopper and Pearson)."
    yield from ["", f"Written by `docs/benchmarks/langevin_alarms.py` on {datetime.date.today()}: "]
    yield f"{platform.machine()}, one thread, torch {torch.__version__}."


def main(arguments):
    run_missing(float(arguments[0]) if arguments else math.inf)
    RESULTS.write_text("\n".join(page(read_records(RECORDS))) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
