"""Filling tables of numbers, counts and categories, beside other imputers.

Three tables, with a target that is never missing: *law*, 1000 rows of a law stated there, with
curved and interacting dependence; *diabetes* and *cancer* of scikit-learn with some columns cut
into categories or rounded to counts. Of 70 % of the rows a share of the cells is hidden

* at random,
* by another column: more often where the column before it is large,
* by own value: more often where the value itself is large, or the category late in the list.

Each imputer learns from what is left of these rows and fills it. Measured are, on hidden cells,
the CRPS of numbers and counts in standard deviations of their column (fair, from 20 draws, 5 of
miceforest; of one value its absolute error), the Brier score of categories (fair; of KNN that of
the shares of the neighbours), the share of categories that the filled table has right, and, on the
other 30 % of the rows, the error of a ridge regression of the target that was fitted on the filled
table, over that of one fitted on the table without gaps.

Peers: the mean or most frequent value; values drawn from the column; KNNImputer and
IterativeImputer(sample_posterior=True) on numbers and indicators, whose largest names the
category; miceforest, if ``--miceforest`` names a Python that has it. Records go to
``results/mixed_tables.jsonl`` and the page is ``results/mixed_tables.md``.

    python docs/benchmarks/mixed_tables.py [--seeds 3] [--miceforest PYTHON] [method ...]
"""

import argparse
import os
import subprocess
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from records import as_text, keep_record, read_records, versions
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skdiffusion import CSDIImputer
from skdiffusion.metrics import crps_loss

RESULTS = Path(__file__).parent / "results" / "mixed_tables.jsonl"
# Draws; of miceforest, which learns every copy anew, fewer.
N_DRAWS, N_TREES = 20, 5
RATES = (0.1, 0.3, 0.5)


# Tables: labels are categoricals, counts are Int64; the last column is the target.


def law(seed):
    """A stated law with thresholds, an interaction, counts and a rare category."""
    rng = np.random.default_rng(1000 + seed)
    n = 1000
    z = rng.normal(size=(n, 3))
    age = 20 + 50 * rng.beta(2, 3, n)
    school = np.digitize(z[:, 0] + 0.5 * rng.normal(size=n), [-1, 0, 1])
    odds = np.stack([z[:, 1], -z[:, 1], 0.8 * z[:, 2], 0.5 * z[:, 0] - 0.5, -2 + 0 * age], 1)
    region = (odds + rng.gumbel(size=(n, 5))).argmax(1)
    married = rng.random(n) < 1 / (1 + np.exp(-4 + (age - 45) ** 2 / 60))
    income = np.exp(0.4 * school + 0.02 * age - 0.3 * (region == 1) + 0.4 * rng.normal(size=n))
    children = rng.poisson(np.where(married, 1.8, 0.3))
    visits = np.where(rng.random(n) < 0.5, 0, rng.poisson(np.exp(0.03 * age)))
    pressure = 90 + 0.6 * age + 6 * z[:, 1] * (region < 2) + 8 * rng.normal(size=n)
    y = np.log(income) + 0.3 * married + 0.02 * pressure + 0.2 * (region == 3)
    return pd.DataFrame(
        {
            "age": age,
            "school": pd.Categorical.from_codes(school, list("abcd"), ordered=True),
            "region": pd.Categorical.from_codes(region, list("vwxyz")),
            "married": pd.Categorical.from_codes(married.astype(int), ["no", "yes"]),
            "income": income,
            "children": pd.array(children, dtype="Int64"),
            "visits": pd.array(visits, dtype="Int64"),
            "pressure": pressure,
            "y": y + 0.3 * rng.normal(size=n),
        }
    )


def diabetes(seed):
    frame = load_diabetes(as_frame=True, scaled=False).frame
    return pd.DataFrame(
        {
            "age": frame["age"].round().astype("Int64"),
            "sex": frame["sex"].map({1.0: "f", 2.0: "m"}).astype("category"),
            "weight": pd.cut(frame["bmi"], [0, 22, 25, 30, 99], labels=list("abcd")),
            "pressure": frame["bp"],
            "s1": frame["s1"].round().astype("Int64"),
            "s2": frame["s2"],
            "s3": frame["s3"],
            "risk": pd.cut(frame["s4"], [0, 3, 4, 5, 99], labels=list("abcd")),
            "s5": frame["s5"],
            "y": frame["target"],
        }
    )


def cancer(seed):
    frame = load_breast_cancer(as_frame=True).frame
    shape = pd.qcut(frame["mean smoothness"], 3, labels=["smooth", "plain", "rough"])
    return pd.DataFrame(
        {
            "kind": frame["target"].map({0: "malignant", 1: "benign"}).astype("category"),
            "radius": frame["mean radius"],
            "texture": pd.qcut(frame["mean texture"], 4, labels=list("abcd")),
            "shape": shape.cat.reorder_categories(["plain", "rough", "smooth"], ordered=False),
            "concave": (1000 * frame["mean concave points"]).round().astype("Int64"),
            "symmetry": frame["mean symmetry"],
            "area error": frame["area error"],
            "dimension": frame["mean fractal dimension"],
            "y": frame["worst perimeter"],
        }
    )


TABLES = {"law": law, "diabetes": diabetes, "cancer": cancer}


def is_label(column):
    return hasattr(column, "cat")


def codes_of(frame):
    """Numbers, and codes of categories."""
    parts = [
        column.cat.codes.where(column.notna()) if is_label(column) else column
        for _, column in frame.items()
    ]
    return np.column_stack([part.to_numpy(dtype=float, na_value=np.nan) for part in parts])


def frame_of(codes, like):
    """The frame of such numbers, of the types of another."""
    out = {}
    for j, (name, column) in enumerate(like.items()):
        values = codes[:, j]
        if is_label(column):
            out[name] = pd.Categorical.from_codes(values.astype(int), dtype=column.dtype)
        else:
            out[name] = values
    return pd.DataFrame(out, index=like.index)


def hide(table, mechanism, rate, rng):
    """Mask of the cells to hide, none of the target."""
    codes = codes_of(table)[:, :-1]
    noise = rng.random(codes.shape)
    if mechanism == "at random":
        return np.column_stack([noise < rate, np.zeros(len(codes), bool)])
    cause = codes if mechanism == "by own value" else np.roll(codes, 1, axis=1)
    rank = (pd.DataFrame(cause).rank(method="average", pct=True)).to_numpy()
    tilt = np.clip(2 * rate * rank, 0, 0.95)
    return np.column_stack([noise < tilt * rate / tilt.mean(axis=0), np.zeros(len(codes), bool)])


# Methods: from a frame with gaps to codes of draws (n, n_draws, n_columns), the codes filled in,
# and probabilities of labels by column where the draws are not what says them.


def ours(method):
    def fill(gaps, seed):
        imputer = CSDIImputer(method=method, n_draws=N_DRAWS, random_state=seed).fit(gaps)
        copies = imputer.sample(gaps)
        draws = np.stack([codes_of(copy) for copy in copies], axis=1)
        return draws, codes_of(imputer.transform(gaps)), {}

    return fill


def one_draw(gaps, seed):
    """The closed form; the table is filled with a draw in place of the median."""
    draws, _, shares = ours("gaussian")(gaps, seed)
    return draws, draws[:, 0], shares


def middle(draws, gaps):
    """Median of numbers, most frequent category."""
    filled = np.median(draws, axis=1)
    for j, (_, column) in enumerate(gaps.items()):
        if is_label(column):
            shares = (draws[..., j, None] == np.arange(len(column.cat.categories))).mean(axis=1)
            filled[:, j] = shares.argmax(axis=1)
        elif column.dtype == "Int64":
            filled[:, j] = np.rint(filled[:, j])
    return filled


def column_mean(gaps, seed):
    codes = codes_of(gaps)
    for j, (_, column) in enumerate(gaps.items()):
        known = codes[~np.isnan(codes[:, j]), j]
        value = np.bincount(known.astype(int)).argmax() if is_label(column) else known.mean()
        codes[np.isnan(codes[:, j]), j] = value
    return codes[:, None], codes, {}


def column_draws(gaps, seed):
    rng, codes = np.random.default_rng(seed), codes_of(gaps)
    draws = np.repeat(codes[:, None], N_DRAWS, axis=1)
    for j in range(codes.shape[1]):
        missing = np.isnan(codes[:, j])
        draws[missing, :, j] = rng.choice(codes[~missing, j], (missing.sum(), N_DRAWS))
    return draws, middle(draws, gaps), {}


def indicators(gaps, spare=0):
    """Standardised numbers and indicators but for the first few, and the way back."""
    codes, blocks, back = codes_of(gaps), [], []
    for j, (_, column) in enumerate(gaps.items()):
        x = codes[:, j]
        if is_label(column):
            k = np.arange(len(column.cat.categories))
            block = np.where(np.isnan(x)[:, None], np.nan, x[:, None] == k)
            blocks.append(block[:, spare:])
            back.append((j, len(k), 0.0, 1.0))
        else:
            centre, scale = np.nanmean(x), np.nanstd(x)
            blocks.append((x[:, None] - centre) / scale)
            back.append((j, 1, centre, scale))
    return np.concatenate(blocks, axis=1), back


def decoded(values, gaps, back, spare=0):
    """Codes of completed rows, and the shares of labels."""
    codes, shares, first = codes_of(gaps), {}, 0
    for j, width, centre, scale in back:
        given = width - spare if width > 1 else 1
        mine = values[:, first : first + given]
        first += given
        if given < width:
            mine = np.column_stack([1 - mine.sum(axis=1), mine])
        missing = np.isnan(codes[:, j])
        if width == 1:
            fill = centre + scale * mine[:, 0]
            known = codes[~missing, j]
            if gaps.dtypes.iloc[j] == "Int64":
                fill = np.clip(np.rint(fill), known.min(), known.max())
        else:
            fill, shares[j] = mine.argmax(axis=1), mine
        codes[missing, j] = fill[missing]
    return codes, shares


def knn(gaps, seed):
    values, back = indicators(gaps)
    codes, shares = decoded(KNNImputer(n_neighbors=10).fit_transform(values), gaps, back)
    return codes[:, None], codes, shares


def chained(gaps, seed):
    # With all indicators of a category each follows from the others, and stays at its start.
    values, back = indicators(gaps, spare=1)
    imputer = IterativeImputer(sample_posterior=True, max_iter=10, random_state=seed).fit(values)
    copies = [decoded(imputer.transform(values), gaps, back, spare=1)[0] for _ in range(N_DRAWS)]
    draws = np.stack(copies, axis=1)
    return draws, middle(draws, gaps), {}


MICEFOREST = """
import sys, json, warnings
import numpy as np, pandas as pd, miceforest as mf
warnings.simplefilter("ignore")
folder, m, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
values, width = np.load(folder + "/codes.npy"), json.load(open(folder + "/widths.json"))
frame = pd.DataFrame(values, columns=[f"c{j}" for j in range(values.shape[1])])
for j, k in enumerate(width):
    if k:
        codes = frame[f"c{j}"].fillna(-1).astype(int)
        frame[f"c{j}"] = pd.Categorical.from_codes(codes, categories=range(k))
kernel = mf.ImputationKernel(frame, num_datasets=m, random_state=seed)
kernel.mice(3, verbose=False, num_threads=1)
copies = [kernel.complete_data(i).astype(float).to_numpy() for i in range(m)]
np.save(folder + "/draws.npy", np.stack(copies, axis=1))
"""


def miceforest(python):
    def fill(gaps, seed):
        import json

        with tempfile.TemporaryDirectory() as folder:
            np.save(f"{folder}/codes.npy", codes_of(gaps))
            widths = [len(c.cat.categories) if is_label(c) else 0 for _, c in gaps.items()]
            Path(f"{folder}/widths.json").write_text(json.dumps(widths))
            command = [python, "-c", MICEFOREST, folder, str(N_TREES), str(seed)]
            # Its environment must not lead to the packages of this one.
            environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
            subprocess.run(command, check=True, env=environment)
            draws = np.load(f"{folder}/draws.npy")
        return draws, middle(draws, gaps), {}

    return fill


METHODS = {
    "CSDIImputer": ours("diffusion"),
    "CSDIImputer, Gaussian": ours("gaussian"),
    "CSDIImputer, Gaussian, one draw": one_draw,
    "mean or most frequent": column_mean,
    "drawn from the column": column_draws,
    "KNNImputer": knn,
    "IterativeImputer": chained,
}


def brier(truth, draws, shares, k):
    """Brier score of draws without the part that comes from their number, or of shares."""
    of_truth = truth[:, None] == np.arange(k)
    if shares is not None:
        return np.square(shares - of_truth).sum(axis=1).mean()
    p, m = (draws[..., None] == np.arange(k)).mean(axis=1), draws.shape[1]
    excess = (p * (1 - p)).sum(axis=1) / (m - 1) if m > 1 else 0.0
    return (np.square(p - of_truth).sum(axis=1) - excess).mean()


def regression_error(train, test):
    """Error on complete rows of a ridge regression of the last column."""
    X, y = train.iloc[:, :-1], train.iloc[:, -1]
    labels = [name for name in X if is_label(X[name])]
    prepare = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), labels), remainder=StandardScaler()
    )
    model = make_pipeline(prepare, RidgeCV(np.logspace(-3, 3, 13)))
    predicted = model.fit(_floats(X), y).predict(_floats(test.iloc[:, :-1]))
    return np.sqrt(np.mean(np.square(predicted - test.iloc[:, -1])))


def _floats(frame):
    return frame.astype({name: float for name in frame if not is_label(frame[name])})


def measure(table, hidden, train, test, found):
    """Scores of what one method found."""
    draws, filled, shares = found
    truth, scores = codes_of(table.loc[train]), {"crps": [], "brier": [], "right": []}
    for j, (_, column) in enumerate(table.items()):
        cells = hidden[:, j]
        if not cells.any():
            continue
        y, x = truth[cells, j], draws[cells][..., j]
        if is_label(column):
            p = shares[j][cells] if j in shares else None
            scores["brier"].append(brier(y, x, p, len(column.cat.categories)))
            scores["right"].append((filled[cells, j] == y).mean())
        else:
            unit = truth[:, j].std()
            method = "fair" if x.shape[1] > 1 else "ensemble"
            scores["crps"].append(crps_loss(y / unit, x / unit, method=method))
    scores = {name: float(np.mean(values)) for name, values in scores.items()}
    scores["regression"] = float(
        regression_error(frame_of(filled, table.loc[train]), table.loc[test])
        / regression_error(table.loc[train], table.loc[test])
    )
    return scores


def _table(frame, groups, order):
    """Lines of a table of means."""
    heads = [{"mechanism": "gaps"}.get(name, name) for name in groups]
    lines = ["| " + " | ".join([*heads, *COLUMNS.values(), "CPU s"]) + " |"]
    lines += ["|" + "---|" * (len(heads) + len(COLUMNS) + 1)]
    rows = frame.groupby(groups)[[*COLUMNS, "seconds"]].mean().reset_index()
    rows["place"] = rows["method"].map(order.index)
    for _, row in rows.sort_values([*groups[:-1], "place"]).iterrows():
        cells = [*row[groups], *(f"{row[c]:.3f}" for c in COLUMNS), f"{row['seconds']:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


MECHANISMS = ("at random", "by another column", "by own value")


def cases(n_seeds):
    """All tables with gaps: seed, name, mechanism, rate."""
    for seed in range(n_seeds):
        for name in TABLES:
            for mechanism in MECHANISMS:
                for rate in RATES:
                    yield {"seed": seed, "table": name, "mechanism": mechanism, "rate": rate}


def cpu_seconds():
    """CPU-seconds of this process and of those it has waited for."""
    return sum(os.times()[:4])


def run(case, method, fill):
    """Record of one method on one table with gaps."""
    seed = case["seed"]
    rng = np.random.default_rng([seed, MECHANISMS.index(case["mechanism"])])
    table = TABLES[case["table"]](seed)
    order = np.random.default_rng(seed).permutation(len(table))
    train, test = np.split(order, [int(0.7 * len(table))])
    hidden = hide(table.loc[train], case["mechanism"], case["rate"], rng)
    begin = cpu_seconds()
    found = fill(table.loc[train].mask(hidden), seed)
    seconds = cpu_seconds() - begin
    scores = measure(table, hidden, train, test, found)
    return {**case, "method": method, **scores, "seconds": round(seconds, 2)}


COLUMNS = {"crps": "CRPS", "brier": "Brier", "right": "right", "regression": "regression"}


def page(records):
    """Markdown page of the results."""
    frame = pd.DataFrame(records).drop_duplicates(["seed", "table", "mechanism", "rate", "method"],
                                                  keep="last")  # fmt: skip
    order = [*METHODS, *(m for m in frame["method"].unique() if m not in METHODS)]
    lines = [
        "# Tables of numbers, counts and categories",
        "",
        "\n\n".join(__doc__.split("\n\n")[1:4]),
        "",
    ]
    lines += [
        "CRPS in standard deviations, Brier score, share of categories that the filled table has "
        "right, and error of a regression on the filled table over that without gaps; means over "
        f"{frame['seed'].nunique()} seeds. Smaller is better, but for the share.",
        "",
    ]
    cases = ["seed", "table", "mechanism", "rate"]
    counts = frame.groupby(cases)["method"].transform("nunique")
    shared = frame[counts == frame["method"].nunique()]
    most = frame.groupby("method").size()
    often = frame[frame["method"].isin(most.index[most == most.max()])]
    for title, part in (("that every method has run", shared), ("of all rates and seeds", often)):
        if len(part):
            n_cases = len(part.drop_duplicates(cases))
            lines += [f"## Means over the {n_cases} cases {title}", ""]
            lines += _table(part, ["method"], order)
    for rate in RATES:
        part = frame[frame["rate"] == rate]
        lines += [f"## {rate:.0%} missing", ""]
        lines += _table(part, ["table", "mechanism", "method"], order)
    lines += [f"Written by `docs/benchmarks/mixed_tables.py`; "
              f"{as_text(versions('numpy', 'scikit-learn', 'torch'))}.", ""]  # fmt: skip
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", help="names of methods; all by default")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--miceforest", metavar="PYTHON")
    parser.add_argument("--tables", nargs="*", default=list(TABLES))
    parser.add_argument("--rates", nargs="*", type=float, default=RATES)
    parser.add_argument("--again", action="store_true", help="also what has been run")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    methods = dict(METHODS)
    if options.miceforest:
        methods["miceforest"] = miceforest(options.miceforest)
    keys = ("seed", "table", "mechanism", "rate", "method")
    done = {tuple(r[k] for k in keys) for r in read_records(RESULTS)}
    for case in cases(options.seeds):
        if case["table"] not in options.tables or case["rate"] not in options.rates:
            continue
        for method in options.methods or methods:
            if options.again or (*case.values(), method) not in done:
                keep_record(run(case, method, methods[method]), RESULTS)
    if records := read_records(RESULTS):
        RESULTS.with_suffix(".md").write_text(page(records))


if __name__ == "__main__":
    main()
