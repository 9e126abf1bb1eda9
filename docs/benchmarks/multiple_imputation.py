"""Coverage of pooled 95 % intervals of regression coefficients after multiple imputation.

Each table has 300 rows, two columns with correlation 0.5, a response with coefficients 0, 1 and
-1 and unit noise, and 30 % of the cells of the columns missing completely at random. For each
imputer the script prints, over the tables, the share of intervals that hold the truth, the mean
error, the spread of the estimates and the mean standard error, which should equal the spread.

    python docs/benchmarks/multiple_imputation.py [--tables 100] [--imputations 20]
"""

import argparse
import json
import os
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer
from sklearn.linear_model import LinearRegression

from skdiffusion import CSDIImputer, MultipleImputation

TRUTH = np.array([0.0, 1.0, -1.0])


def table(seed):
    """Draw one incomplete table and its response."""
    rng = np.random.default_rng(seed)
    X = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], size=300)
    y = X @ TRUTH[1:] + rng.normal(size=300)
    X[rng.uniform(size=X.shape) < 0.3] = np.nan
    return X, y


def pooled(imputer, seed, n_imputations):
    """Pool the coefficients of one table."""
    model = MultipleImputation(imputer, LinearRegression(), n_imputations, random_state=0)
    return model.fit(*table(seed)).pooled_


def measure(name, imputer, n_tables, n_imputations):
    """Summarise the pooled coefficients of many tables."""
    results = [pooled(imputer, seed, n_imputations) for seed in range(n_tables)]
    estimates = np.array([result.estimate for result in results])
    inside = [(result.low < TRUTH) & (result.high > TRUTH) for result in results]
    errors = np.array([result.standard_error for result in results])
    return {
        "imputer": name,
        "tables": n_tables,
        "imputations": n_imputations,
        "coverage": np.mean(inside, 0).round(3).tolist(),
        "bias": (estimates.mean(0) - TRUTH).round(3).tolist(),
        "spread": estimates.std(0).round(3).tolist(),
        "mean_standard_error": errors.mean(0).round(3).tolist(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=100)
    parser.add_argument("--imputations", type=int, default=20)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    imputers = {
        "CSDIImputer(method='gaussian')": CSDIImputer(method="gaussian"),
        "IterativeImputer(sample_posterior=True)": IterativeImputer(sample_posterior=True),
    }
    for name, imputer in imputers.items():
        print(json.dumps(measure(name, imputer, options.tables, options.imputations)), flush=True)


if __name__ == "__main__":
    main()
