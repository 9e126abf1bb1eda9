"""
Choosing an imputer by its CRPS
===============================

Which gaps should an imputer practise on, how wide should its network be, how many steps should a
draw take? The answer depends on the data. This example searches with
:class:`~sklearn.model_selection.GridSearchCV` over a pipeline, scores by the CRPS of cells that are
hidden on purpose, and then checks the choice on weeks that the search has never seen.

Run as a script, it saves the picture under the name given as its argument,
``grid_search_imputer.png`` by default.
"""

# %%
# An autumn at two airports
# -------------------------
# Temperature, humidity and wind speed, hour by hour. The search gets September and October;
# November, less one day in between, is put away.

import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PowerTransformer

from skdiffusion import CSDIImputer
from skdiffusion.datasets import load_nyc_weather
from skdiffusion.metrics import make_imputation_scorer

SENSORS = [f"{airport}_{what}" for airport in ("JFK", "LGA") for what in ("temp", "humid", "wind_speed")]
weather = load_nyc_weather(as_frame=True).frame[SENSORS]
search_part, never_used = weather["2013-09":"2013-10"], weather["2013-11-02":"2013-11-30"]
print(f"{len(search_part)} hours to search with, {len(never_used)} put away")

# %%
# The question that all candidates are asked
# ------------------------------------------
# Sensors fail for half a day, two at a time. The scorer hides such runs in the data of a fold, lets
# the fitted pipeline fill them, and measures the CRPS of the draws there. The same cells are hidden
# for every candidate. Draws are taken back through the transformer, so that errors are in degrees,
# percent and miles per hour; ``scale`` makes the columns count alike.

scorer_options = {
    "mechanism": "block",
    "block_length": 12,
    "n_block_features": 2,
    "missing_rate": 0.15,
    "scale": search_part.std(),
}
scorer = make_imputation_scorer("crps", **scorer_options)

# %%
# The search
# ----------
# ``TimeSeriesSplit`` with a gap of a window trains on the past and scores on what follows, so that
# no window reaches from one into the other. ``set_output`` lets the times of the frame through to
# the imputer. Training is kept short here; a longer one gains, and takes longer.

pipeline = make_pipeline(
    PowerTransformer().set_output(transform="pandas"),
    CSDIImputer(window_length=24, max_iter=100, early_stopping=False, random_state=0),
)
grid = {
    "csdiimputer__target_strategy": ["block", "random"],
    "csdiimputer__n_channels": [8, 32],
    "csdiimputer__n_steps": [2, 8],
}
search = GridSearchCV(pipeline, grid, scoring=scorer, cv=TimeSeriesSplit(2, gap=24))
search.fit(search_part)
print("chosen:", search.best_params_)

# %%
# Does the choice hold on weeks it has never seen?
# ------------------------------------------------
# Every candidate is fitted to September and October and asked to fill five sets of gaps in November.
# A change of ``n_steps`` alone needs no new fit: it matters only when drawing.

scorers = [make_imputation_scorer("crps", random_state=i, **scorer_options) for i in range(1, 6)]
fitted, rows = {}, []
for candidate, crps in zip(search.cv_results_["params"], -search.cv_results_["mean_test_score"]):
    strategy, n_channels, n_steps = (
        candidate[f"csdiimputer__{name}"] for name in ("target_strategy", "n_channels", "n_steps")
    )
    if (strategy, n_channels) not in fitted:
        fitted[strategy, n_channels] = pipeline.set_params(**candidate).fit(search_part)
        pipeline = make_pipeline(*(s for _, s in search.estimator.steps))
    model = fitted[strategy, n_channels].set_params(**candidate)
    scores = [-s(model, never_used) for s in scorers]
    label = f'"{strategy}", {n_channels} channels, {n_steps} steps'
    rows.append({"candidate": label, "in the search": crps, "never used": np.mean(scores)})
    rows[-1]["scores"] = np.array(scores)
table = pd.DataFrame(rows).set_index("candidate")
print(table[["in the search", "never used"]].to_string(float_format="{:.4f}".format))
