"""Words that users type into the search, and the section that answers.

Sphinx counts a word in a text as much as any other, and orders what is left by name. Words listed
here come first: they are entries of the index of the page, at the heading named, or at its title.
"""

import re

WORDS = {
    "user_guide/imputation": {
        "": "missing values, missing data, fill gaps, impute, imputation, time series, NaN",
        "From your own CSV": "CSV, read_csv",
        "Choosing the window": "window length",
        "Is the uncertainty honest?": "uncertainty",
    },
    "user_guide/faq": {
        "How do I avoid negative values?": "negative values, bounds, positive, limits of values",
        "Does it work with polars, dask, xarray?": "polars, dask, xarray",
        "How do I make results reproducible?": "reproducible, random_state, seed",
        "Which licence, how do I cite it?": "licence, license, cite, citation",
        "Are synthetic rows private?": "privacy, private",
    },
    "user_guide/files": {"": "save model, load model, save, pickle, joblib, export, deploy"},
    "user_guide/categories": {
        "": "categorical, category, categories, text columns, one-hot, mixed types, counts"
    },
    "user_guide/forecasting": {"": "forecast, forecasting, predict the future, look-ahead"},
    "user_guide/panels": {"": "panel, panels, long format, groups, patients, many series"},
    "user_guide/speed": {
        "": "slow, speed, fast, large data",
        "GPU": "GPU, cuda, device",
        "Threads and processes": "threads, n_jobs, parallel, cores",
        "Memory": "memory, out of memory",
    },
    "user_guide/outliers": {
        "": "outlier, outliers, anomaly, anomalies, odd rows, novelty",
        "What extreme values do to a model": "spike, glitch, bad readings, sensor errors, sentinel",
    },
    "user_guide/calibration": {
        "": "confidence interval, prediction interval, intervals, coverage, calibration, conformal"
    },
    "user_guide/multiple_imputation": {
        "": "multiple imputation, mice, Rubin, standard errors, regression with missing data"
    },
    "user_guide/model_selection": {
        "": "grid search, cross-validation, hyperparameters, tuning, scoring, model selection",
        "In a pipeline": "pipeline",
    },
    "user_guide/langevin": {
        "": "posterior, MCMC, Bayesian, sampler, Langevin",
        "Positive, bounded, ordered variables and shares": "constraints, bounded parameter",
        "Reading the diagnostics": "convergence, r hat, diagnostics",
    },
    "user_guide/score_sde": {
        "": "density, density estimation, synthetic data, log likelihood, generate rows",
        "Given a label or a value": "conditional, conditional sampling",
    },
    "user_guide/choosing": {"": "which method, which estimator, choose, compare"},
    "user_guide/troubleshooting": {"": "error, problem, warning, does not work"},
    "user_guide/limits": {"": "limitations, cannot"},
    "user_guide/promises": {"": "security, stability, versions, backwards compatible"},
    "install": {"": "install, pip, conda, windows, mac, linux, requirements, dependencies"},
    "theory/score_matching": {"": "score matching, Tweedie, Girsanov"},
    "theory/likelihood": {"": "entropy, likelihood bound"},
}


def add_words(app, docname, source):
    """Put entries of the index below the headings of a page that answer to them."""
    for heading, words in WORDS.get(docname, {}).items():
        # An exclamation mark makes an entry one of the page's own subjects, which come first.
        marked = ", ".join(f"! {word.strip()}" for word in words.split(","))
        entries = f"\n```{{index}} {marked}\n```\n"
        title = rf"^##+ {re.escape(heading)}$" if heading else r"^# .*$"
        # Of a heading that is gone the words go to the title.
        found = re.search(title, source[0], re.MULTILINE) or re.search(r"^# .*$", source[0], re.M)
        if found:
            source[0] = source[0][: found.end()] + "\n" + entries + source[0][found.end() :]


def setup(app):
    """Register the hook."""
    app.connect("source-read", add_words)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
