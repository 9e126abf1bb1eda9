"""LangevinSampler with its defaults on the posteriors of posteriordb that have reference draws.

Needs a clone of https://github.com/stan-dev/posteriordb (``--posteriordb FOLDER``). The models are
written here in torch as its Stan files have them, in the coordinates of the data: raw columns of
regressions, years, dollars, probabilities, differential equations. Whoever calls the sampler gives
the log density and bounds, nothing else; 2000 draws are compared with the 10 000 of the reference.

Records go to ``results/posteriordb.jsonl``, the page to ``results/posteriordb.md``; what has a
record is not run again. A posterior that takes more than 600 seconds is named.

    python docs/benchmarks/posteriordb.py --posteriordb FOLDER [--names NAME ...]
"""

import argparse
import itertools
import json
import math
import os
import time
import warnings
import zipfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from records import as_text, in_time, keep_record, read_records, versions

from skdiffusion import LangevinSampler

RESULTS = Path(__file__).parent / "results" / "posteriordb.jsonl"
N_DRAWS, N_REFERENCE, LIMIT = 2000, 10_000, 600
FREE, POSITIVE, SHARE = (None, None), (0, None), (0, 1)

# ------------------------------------------------------------------ densities, up to constants


def normal(x, mean, scale):
    """Summed over the last axis."""
    z = (x - mean) / scale
    return (-0.5 * z.square() - torch.log(scale + 0 * z)).sum(-1)


def cauchy(x, scale):
    return -torch.log1p((x / scale).square())


def student(x, centre, scale):
    """With three degrees of freedom."""
    return -2 * torch.log1p(((x - centre) / scale).square() / 3)


def flat(coefficients, scale):
    return 0 * scale


def half_cauchy(coefficients, scale):
    return cauchy(scale, 2.5)


def regression(y, columns, prior=flat, intercept=True):
    """Normal errors about a linear mean; the last coordinate is their scale."""
    X = np.column_stack([np.ones(len(y))] * intercept + list(columns))
    y, X = as_tensor(y), as_tensor(X)

    def log_density(x):
        coefficients, scale = x[:, :-1], x[:, -1:]
        return normal(y, coefficients @ X.T, scale) + prior(coefficients, scale[:, 0])

    return log_density, [FREE] * X.shape[1] + [POSITIVE]


def as_tensor(values):
    return torch.as_tensor(np.asarray(values, dtype=float))


# ------------------------------------------------------------------ models: data -> density, bounds


def kidscore(which):
    def model(d):
        iq, hs = (np.asarray(d.get(key, 0.0), dtype=float) for key in ("mom_iq", "mom_hs"))
        if which == "mom_work":
            work = np.asarray(d["mom_work"])
            return regression(d["kid_score"], [work == k for k in (2, 3, 4)])
        if which == "interaction_c":
            iq, hs = iq - iq.mean(), hs - hs.mean()
        elif which == "interaction_c2":
            iq, hs = iq - 100, hs - 0.5
        elif which == "interaction_z":
            iq, hs = ((x - x.mean()) / (2 * x.std(ddof=1)) for x in (iq, hs))
        else:
            columns = {
                "momhs": [hs],
                "momiq": [iq],
                "momhsiq": [hs, iq],
                "interaction": [hs, iq, hs * iq],
            }
            return regression(d["kid_score"], columns[which], half_cauchy)
        return regression(d["kid_score"], [hs, iq, hs * iq])

    return model


def earnings(which):
    def model(d):
        earn, height, male = (np.asarray(d[key], dtype=float) for key in ("earn", "height", "male"))
        z = (height - height.mean()) / height.std(ddof=1)
        y = {"earn": earn, "log1": np.log10(earn)}.get(which[:4], np.log(earn))
        columns = {
            "logearn_height_male": [height, male],
            "logearn_interaction": [height, male, height * male],
            "logearn_interaction_z": [z, male, z * male],
            "logearn_logheight_male": [np.log(height), male],
        }
        return regression(y, columns.get(which, [height]))

    return model


def mesquite(which):
    def model(d):
        raw = ["diam1", "diam2", "canopy_height", "total_height", "density"]
        values = {key: np.asarray(d[key], dtype=float) for key in [*raw, "weight", "group"]}
        log = {key: np.log(values[key]) for key in raw}
        if which == "mesquite":
            return regression(values["weight"], [values[key] for key in [*raw, "group"]])
        area, shape = log["diam1"] + log["diam2"], log["diam1"] - log["diam2"]
        volume, group = area + log["canopy_height"], values["group"]
        columns = {
            "logmesquite": [*log.values(), group],
            "logmesquite_logva": [volume, area, group],
            "logmesquite_logvas": [
                volume,
                area,
                shape,
                log["total_height"],
                log["density"],
                group,
            ],
            "logmesquite_logvash": [volume, area, shape, log["total_height"], group],
            "logmesquite_logvolume": [volume],
        }
        return regression(np.log(values["weight"]), columns[which])

    return model


def nes(d):
    age = np.asarray(d["age_discrete"])
    ages = [age == k for k in (2, 3, 4)]
    known = [d["real_ideo"], d["race_adj"], *ages, d["educ1"], d["gender"], d["income"]]
    return regression(d["partyid7"], known)


def blr(d):
    def prior(coefficients, scale):
        return -0.005 * (coefficients.square().sum(1) + scale.square())

    return regression(d["y"], np.asarray(d["X"]).T, prior, intercept=False)


def kilpisjarvi(d):
    def prior(coefficients, scale):
        alpha = (coefficients[:, 0] - d["pmualpha"]) / d["psalpha"]
        beta = (coefficients[:, 1] - d["pmubeta"]) / d["psbeta"]
        return -0.5 * (alpha.square() + beta.square())

    return regression(d["y"], [d["x"]], prior)


def autoregression(d):
    y, k = np.asarray(d["y"]), d["K"]

    def prior(coefficients, scale):
        return -0.005 * coefficients.square().sum(1) + cauchy(scale, 2.5)

    return regression(y[k:], [y[k - i : len(y) - i] for i in range(1, k + 1)], prior)


def diamonds(d):
    X = np.asarray(d["X"])[:, 1:]
    y, X = as_tensor(d["Y"]), as_tensor(X - X.mean(0))

    def log_density(x):
        b, intercept, scale = x[:, :-2], x[:, -2:-1], x[:, -1:]
        prior = student(intercept[:, 0], 8, 10) + student(scale[:, 0], 0, 10)
        return normal(y, intercept + b @ X.T, scale) + prior - 0.5 * b.square().sum(1)

    return log_density, [FREE] * (X.shape[1] + 1) + [POSITIVE]


def arma(d):
    y = as_tensor(d["y"])

    def log_density(x):
        mu, phi, theta, sigma = x.T
        errors = [y[0] - mu - phi * mu]
        for before, now in itertools.pairwise(y):
            errors.append(now - mu - phi * before - theta * errors[-1])
        prior = -0.5 * ((mu / 10).square() + (phi / 2).square() + (theta / 2).square())
        left = torch.stack(errors, 1)
        return normal(left, 0 * left, sigma[:, None]) + prior + cauchy(sigma, 2.5)

    return log_density, [FREE] * 3 + [POSITIVE]


def garch(d):
    y = as_tensor(d["y"])

    def log_density(x):
        mu, alpha0, alpha1, beta1 = x.T
        variances = [torch.full_like(mu, d["sigma1"] ** 2)]
        for before in y[:-1]:
            variances.append(alpha0 + alpha1 * (before - mu) ** 2 + beta1 * variances[-1])
        value = normal(y, mu[:, None], torch.stack(variances, 1).sqrt())
        return torch.where(alpha1 + beta1 < 1, value, -torch.inf)

    return log_density, [FREE, POSITIVE, SHARE, SHARE]


def two_normals(d):
    y = as_tensor(d["y"])[:, None, None]

    def log_density(x):
        mu, sigma, share = x[:, :2], x[:, 2:4], x[:, 4]
        weights = torch.stack([share.log(), torch.log1p(-share)], 1)
        each = -0.5 * ((y - mu) / sigma).square() - sigma.log() + weights
        prior = 4 * weights.sum(1) - 0.125 * (mu.square() + sigma.square()).sum(1)
        return torch.logsumexp(each, 2).sum(0) + prior

    return log_density, [("ordered", 2), POSITIVE, POSITIVE, SHARE]


def forward(emissions, shares):
    """Likelihood of a hidden Markov chain with two states, from (n_times, n, 2) and (n, 2, 2)."""
    sums, steps = emissions[0], shares.log()
    for now in emissions[1:]:
        sums = torch.logsumexp(sums[:, :, None] + steps, 1) + now
    return torch.logsumexp(sums, 1)


def hidden_example(d):
    y = as_tensor(d["y"])[:, None, None]

    def log_density(x):
        shares, mu = x[:, :4].reshape(-1, 2, 2), x[:, 4:]
        prior = -0.5 * ((mu[:, 0] - 3).square() + (mu[:, 1] - 10).square())
        value = forward(-0.5 * (y - mu).square(), shares) + prior
        return torch.where(mu[:, 0] > 0, value, -torch.inf)

    return log_density, [("simplex", 2), ("simplex", 2), ("ordered", 2)]


def hidden_drive(exponential):
    def model(d):
        u, v, alpha = as_tensor(d["u"])[:, None, None], as_tensor(d["v"])[:, None, None], d["alpha"]
        alpha = as_tensor(alpha) - 1

        def log_density(x):
            shares, phi, rate = x[:, :4].reshape(-1, 2, 2), x[:, 4:6], x[:, 6:]
            if exponential:
                seen = phi.log() - phi * u + rate.log() - rate * v
            else:
                seen = -0.5 * (((u - phi) / d["tau"]) ** 2 + ((v - rate) / d["rho"]) ** 2)
            prior = (alpha * shares.log()).sum((1, 2))
            for low, high in (phi.T, rate.T):
                prior = prior - 0.5 * (low.square() + (high - 3).square())
            value = forward(seen, shares) + prior
            inside = (phi[:, 0] < phi[:, 1]) & (rate[:, 0] < rate[:, 1])
            return torch.where(inside, value, -torch.inf)

        both = [POSITIVE] * 4 if exponential else [("ordered", 2)] * 2
        return log_density, [("simplex", 2), ("simplex", 2), *both]

    return model


def kernel(x, alpha, rho, noise):
    """Cholesky factors of a Gaussian process."""
    distance = (x[:, None] - x).square()
    covariance = alpha[:, None, None] ** 2 * torch.exp(-0.5 * distance / rho[:, None, None] ** 2)
    return torch.linalg.cholesky(covariance + noise[..., None, None] * torch.eye(len(x)).double())


def gp_prior(rho, alpha):
    return 24 * rho.log() - 4 * rho - 0.125 * alpha.square()


def gp_regression(d):
    inputs, y = as_tensor(d["x"]), as_tensor(d["y"])

    def log_density(x):
        rho, alpha, sigma = x.T
        root = kernel(inputs, alpha, rho, sigma)
        white = torch.linalg.solve_triangular(root, y[:, None].expand(len(x), -1, 1), upper=False)
        volume = root.diagonal(dim1=-2, dim2=-1).log().sum(1)
        return gp_prior(rho, alpha) - 0.5 * (white.square().sum((1, 2)) + sigma**2) - volume

    return log_density, [POSITIVE] * 3


def gp_poisson(d):
    inputs, k = as_tensor(d["x"]), as_tensor(d["k"])
    least = torch.tensor(1e-10).double()

    def rates(x):
        return (kernel(inputs, x[:, 1], x[:, 0], least) @ x[:, 2:, None])[..., 0]

    def log_density(x):
        f = rates(x)
        return (
            (k * f - f.exp()).sum(1) - 0.5 * x[:, 2:].square().sum(1) + gp_prior(x[:, 0], x[:, 1])
        )

    def reported(x):
        return torch.cat([x[:, :2], rates(x)], 1)

    return log_density, [POSITIVE] * 2 + [FREE] * len(k), reported


def runge_kutta(slope, z, times, begin, steps_a_unit):
    """Solution at some times, by steps of order four."""
    found, t = [], begin
    for end in times:
        n = max(1, math.ceil((end - t) * steps_a_unit))
        h = (end - t) / n
        for _ in range(n):
            a = slope(t, z)
            b = slope(t + h / 2, z + h / 2 * a)
            c = slope(t + h / 2, z + h / 2 * b)
            z = z + h / 6 * (a + 2 * b + 2 * c + slope(t + h, z + h * c))
            t = t + h
        found.append(z)
    return torch.stack(found)


def lotka_volterra(d):
    first, y = as_tensor(d["y_init"]).log(), as_tensor(d["y"]).log()[:, None]

    def log_density(x):
        (alpha, beta, gamma, delta), begin, sigma = x[:, :4].T, x[:, 4:6], x[:, 6:]

        def slope(t, z):
            u, v = z.T
            return torch.stack([(alpha - beta * v) * u, (delta * u - gamma) * v], 1)

        z = runge_kutta(slope, begin, d["ts"], 0.0, 6).clamp(min=1e-12).log()
        prior = -0.5 * (((alpha - 1) / 0.5) ** 2 + ((gamma - 1) / 0.5) ** 2)
        prior = prior - 0.5 * (((beta - 0.05) / 0.05) ** 2 + ((delta - 0.05) / 0.05) ** 2)
        for value, mean in ((sigma.log(), -1.0), (begin.log(), math.log(10))):
            prior = prior - (0.5 * (value - mean) ** 2 + value).sum(1)
        return normal(first, begin.log(), sigma) + normal(y, z, sigma).sum(0) + prior

    return log_density, [POSITIVE] * 8


def michaelis_menten(d):
    y = as_tensor(d["C_hat"]).log()

    def log_density(x):
        k_a, k_m, v_m, sigma = x.T

        def slope(t, z):
            dose = torch.exp(-k_a * t) * d["D"] * k_a / d["V"]
            return dose - v_m / d["V"] * z / (k_m + z)

        z = runge_kutta(slope, 0 * k_a, d["times"], d["t0"], 10).clamp(min=1e-12).log()
        return normal(y, z.T, sigma[:, None]) + cauchy(x, 1.0).sum(1)

    return log_density, [POSITIVE] * 4


def eight_schools(centred):
    def model(d):
        y, sigma = as_tensor(d["y"]), as_tensor(d["sigma"])

        def log_density(x):
            effect, mu, tau = x[:, :8], x[:, 8:9], x[:, 9:]
            prior = -0.5 * (mu[:, 0] / 5) ** 2 + cauchy(tau[:, 0], 5)
            if centred:
                return prior + normal(effect, mu, tau) + normal(y, effect, sigma)
            prior = prior - 0.5 * effect.square().sum(1)
            return prior + normal(y, mu + tau * effect, sigma)

        def reported(x):
            return x if centred else torch.cat([x[:, 8:9] + x[:, 9:] * x[:, :8], x[:, 8:]], 1)

        return log_density, [FREE] * 9 + [POSITIVE], reported

    return model


KIDS = {
    "kidiq": ["interaction", "momhs", "momhsiq", "momiq"],
    "kidiq_with_mom_work": ["interaction_c", "interaction_c2", "interaction_z", "mom_work"],
}
EARN = ["earn_height", "log10earn_height", "logearn_height", "logearn_height_male"]
EARN += ["logearn_interaction", "logearn_interaction_z", "logearn_logheight_male"]
LOGS = ["mesquite", "logmesquite"] + [
    f"logmesquite_log{x}" for x in ("va", "vas", "vash", "volume")
]
YEARS = (1972, 1976, 1980, 1984, 1988, 1992, 1996, 2000)
MODELS = {
    **{f"{data}-kidscore_{w}": kidscore(w) for data, all_ in KIDS.items() for w in all_},
    **{f"earnings-{which}": earnings(which) for which in EARN},
    **{f"mesquite-{which}": mesquite(which) for which in LOGS},
    **{f"nes{year}-nes": nes for year in YEARS},
    "sblrc-blr": blr,
    "sblri-blr": blr,
    "arK-arK": autoregression,
    "kilpisjarvi_mod-kilpisjarvi": kilpisjarvi,
    "diamonds-diamonds": diamonds,
    "arma-arma11": arma,
    "garch-garch11": garch,
    "low_dim_gauss_mix-low_dim_gauss_mix": two_normals,
    "hmm_example-hmm_example": hidden_example,
    "bball_drive_event_0-hmm_drive_0": hidden_drive(True),
    "bball_drive_event_1-hmm_drive_1": hidden_drive(False),
    "gp_pois_regr-gp_regr": gp_regression,
    "gp_pois_regr-gp_pois_regr": gp_poisson,
    "hudson_lynx_hare-lotka_volterra": lotka_volterra,
    "one_comp_mm_elim_abs-one_comp_mm_elim_abs": michaelis_menten,
    "eight_schools-eight_schools_noncentered": eight_schools(False),
    "eight_schools-eight_schools_centered": eight_schools(True),
}
# Posteriors with the reference draws of another name.
SAME = {"eight_schools-eight_schools_centered": "eight_schools-eight_schools_noncentered"}


# ------------------------------------------------------------------ runs


def unpacked(path):
    """JSON in a zip file."""
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(archive.namelist()[0]))


def reference(folder, name):
    """Reference draws (10 000, n_parameters)."""
    path = folder / "reference_posteriors" / "draws" / "draws" / f"{SAME.get(name, name)}.json.zip"
    chains = unpacked(path)
    return np.concatenate([np.column_stack(list(chain.values())) for chain in chains])


def measured(folder, name):
    """Errors and cost of one posterior."""
    data = unpacked(folder / "data" / "data" / f"{name.split('-')[0]}.json.zip")
    log_density, bounds, *reported = MODELS[name](data)
    n_evaluations = [0]

    def counted(x):
        n_evaluations[0] += len(x)
        return log_density(x)

    n_features = sum(b[1] if isinstance(b[0], str) else 1 for b in bounds)
    start = time.process_time()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        sampler = LangevinSampler(counted, bounds=bounds, n_features=n_features, random_state=0)
        sampler.fit()
        found = {"fit": time.process_time() - start, "features": n_features}
        found["evaluations"] = [n_evaluations[0]]
        x = sampler.sample(N_DRAWS)
    found["draws"] = time.process_time() - start - found["fit"]
    found["evaluations"].append(n_evaluations[0] - found["evaluations"][0])
    found["method"], found["warnings"] = sampler.method_, len(seen)
    x = reported[0](torch.as_tensor(x)).numpy() if reported else np.asarray(x)
    known = reference(folder, name)
    scale = known.std(0) * np.sqrt(1 / N_DRAWS + 1 / N_REFERENCE)
    found["error"] = float(np.abs((x.mean(0) - known.mean(0)) / scale).max())
    ratio = x.std(0) / known.std(0)
    return {**found, "narrowest": float(ratio.min()), "widest": float(ratio.max())}


def page(records):
    """Markdown page of the results."""
    done = [r for r in records if "failed" not in r]
    lines = [
        "# posteriordb",
        "",
        f"{N_DRAWS} draws with the defaults of `LangevinSampler`, beside the reference draws. "
        "*error* is the largest difference of a mean in standard errors of both, so that 3 is "
        "usual of forty posteriors; *deviations* are the smallest and the "
        "largest ratio of a standard deviation to that of the reference, within .05 of 1 by "
        "chance. CPU-seconds of `fit` and of the draws, one thread; thousands of evaluations of "
        "the log density and its gradient in both.",
        "",
        "## Posteriors",
        "",
        "| posterior | numbers | method | error | deviations | warned | seconds "
        "| evaluations / 1000 |",
        "|---" * 8 + "|",
    ]
    for r in sorted(done, key=lambda r: list(MODELS).index(r["posterior"])):
        counts = " + ".join(f"{n / 1000:.0f}" for n in r["evaluations"])
        lines.append(
            f"| {r['posterior']} | {r['features']} | {r['method']} | {r['error']:.1f} "
            f"| {r['narrowest']:.2f} to {r['widest']:.2f} | {'yes' if r['warnings'] else 'no'} "
            f"| {r['fit']:.1f} + {r['draws']:.1f} | {counts} |"
        )
    right = sum(r["error"] < 4 for r in done)
    warned = sum(r["warnings"] > 0 for r in done)
    failed = "; ".join(f"{r['posterior']} ({r['failed']})" for r in records if "failed" in r)
    lines += ["", f"Error below 4: {right} of {len(done)}; with a warning: {warned}."]
    lines += ["", f"Without an answer: {failed or 'none'}."]
    left = [name for name in MODELS if name not in {r["posterior"] for r in records}]
    lines += ["", f"Not run: {', '.join(left) or 'none'}."]
    used = as_text(versions("numpy", "torch"))
    lines += ["", f"Seed 0. Made by `docs/benchmarks/posteriordb.py` with {used}."]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--posteriordb", type=Path, required=True, help="folder of the clone")
    parser.add_argument("--names", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = {r["posterior"] for r in read_records(options.out)}
    for name in options.names:
        if name in known:
            continue
        record = {"posterior": name}
        try:
            record |= in_time(LIMIT, measured, options.posteriordb / "posterior_database", name)
        except Exception as error:
            record["failed"] = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        keep_record(record, options.out)
    if options.out == RESULTS:
        RESULTS.with_suffix(".md").write_text(page(read_records(RESULTS)), encoding="utf-8")


if __name__ == "__main__":
    main()
