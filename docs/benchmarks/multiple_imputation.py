"""Coverage of 95 % intervals of regression coefficients after imputation.

Each table has 300 rows, two columns, a response with coefficients 0, 1 and -1 and unit noise, and
30 % of the cells of the columns missing completely at random. The columns follow one of three laws:
normal with correlation 0.5, three clusters, or log-normal. For each law and method the script
writes, over the tables, the share of intervals that hold the truth, the mean error, the spread of
the estimates and the mean standard error, which should equal the spread, to
``results/multiple_imputation.md`` beside this script.

    python docs/benchmarks/multiple_imputation.py [--tables 100] [--imputations 10]
"""

import argparse
import itertools
import os
import platform
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import sklearn
from scipy import stats
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer
from sklearn.linear_model import LinearRegression

from skdiffusion import CSDIImputer, MultipleImputation

TRUTH = np.array([0.0, 1.0, -1.0])
RESULTS = Path(__file__).parent / "results" / "multiple_imputation.md"
CHAINED = IterativeImputer(sample_posterior=True, max_iter=3)
GAUSSIAN = CSDIImputer(method="gaussian")


def normal(rng):
    return rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], size=300)


def clusters(rng):
    centres = np.array([[-1.3, -0.7], [0.0, 1.4], [1.3, -0.7]])
    return centres[rng.integers(3, size=300)] + 0.3 * rng.normal(size=(300, 2))


def skewed(rng):
    return np.exp(0.7 * normal(rng))


LAWS = {"normal columns": normal, "three clusters": clusters, "log-normal columns": skewed}


def table(law, seed):
    """Draw one table, complete and with gaps, and its response."""
    rng = np.random.default_rng(seed)
    X = law(rng)
    y = X @ TRUTH[1:] + rng.normal(size=300)
    return X, np.where(rng.uniform(size=X.shape) < 0.3, np.nan, X), y


def least_squares(X, y):
    """Coefficients, their standard errors and intervals."""
    design = np.column_stack([np.ones(len(X)), X])
    estimate, df = np.linalg.lstsq(design, y)[0], len(y) - design.shape[1]
    variance = np.square(y - design @ estimate).sum() / df * np.linalg.inv(design.T @ design)
    error = np.sqrt(np.diag(variance))
    half = stats.t.ppf(0.975, df) * error
    return estimate, error, estimate - half, estimate + half


def nothing_missing(complete, X, y, m):
    return least_squares(complete, y)


def complete_rows(complete, X, y, m):
    rows = ~np.isnan(X).any(axis=1)
    return least_squares(X[rows], y[rows])


def mean_filled(complete, X, y, m):
    return least_squares(np.where(np.isnan(X), np.nanmean(X, axis=0), X), y)


def pooled(imputer, bootstrap):
    """Analysis by multiple imputation."""

    def analysis(complete, X, y, m):
        model = MultipleImputation(
            imputer, LinearRegression(), m, bootstrap=bootstrap, random_state=0
        )
        found = model.fit(X, y).pooled_
        return found.estimate, found.standard_error, found.low, found.high

    return analysis


METHODS = {
    "nothing missing": nothing_missing,
    "complete rows only": complete_rows,
    "mean filled in": mean_filled,
    "CSDIImputer(method='gaussian'), bootstrap=False": pooled(GAUSSIAN, False),
    "CSDIImputer(method='gaussian')": pooled(GAUSSIAN, True),
    "IterativeImputer, bootstrap=False": pooled(CHAINED, False),
    "IterativeImputer": pooled(CHAINED, True),
}


def measure(analysis, law, n_tables, m):
    """Row of the results."""
    begin = time.process_time()
    results = [analysis(*table(law, seed), m) for seed in range(n_tables)]
    seconds = (time.process_time() - begin) / n_tables
    estimate, error, low, high = (np.array(part) for part in zip(*results, strict=True))
    inside = (low < TRUTH) & (high > TRUTH)
    columns = [
        f"{inside.mean():.3f}",
        each(inside.mean(0), 2),
        each(estimate.mean(0) - TRUTH, 3),
        each(estimate.std(0, ddof=1), 3),
        each(error.mean(0), 3),
        f"{seconds:.2f}",
    ]
    return " | ".join(columns)


def each(values, digits):
    return ", ".join(f"{value:.{digits}f}" for value in values)


def section(law, rows):
    """Lines of the table of one law."""
    return [
        f"## {law.capitalize()}",
        "",
        "| method | coverage | of each coefficient | bias | spread | standard error "
        "| CPU s a table |",
        "|---|---|---|---|---|---|---|",
        *(f"| {name} | {row} |" for name, row in rows.items()),
        "",
    ]


def page(rows, n_tables, m):
    """Markdown page of the results, a table for each law."""
    return "\n".join(
        [
            "# MultipleImputation: coverage of 95 % intervals",
            "",
            f"Least squares with intercept and two coefficients on {n_tables} simulated tables of "
            f"300 rows, 30 % of the cells missing completely at random; {m} imputations. For the "
            f"three coefficients together the coverage has a standard error of about "
            f"{np.sqrt(0.95 * 0.05 / n_tables / 3):.3f}. IterativeImputer has "
            "`sample_posterior=True, max_iter=3`. Spread is that of the estimates over the tables; "
            "the standard error should equal it.",
            "",
            *(line for law, found in rows.items() for line in section(law, found)),
            f"Written by `docs/benchmarks/multiple_imputation.py` on {datetime.now(UTC):%Y-%m-%d}: "
            f"{platform.machine()}, one thread, scikit-learn {sklearn.__version__}.",
            "",
        ]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=100)
    parser.add_argument("--imputations", type=int, default=10)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = {}
    for (law, columns), (name, analysis) in itertools.product(LAWS.items(), METHODS.items()):
        row = measure(analysis, columns, options.tables, options.imputations)
        rows.setdefault(law, {})[name] = row
        print(law, name, row, sep=" | ", flush=True)
        RESULTS.write_text(page(rows, options.tables, options.imputations))


if __name__ == "__main__":
    main()
