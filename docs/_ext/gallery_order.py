"""Order of the examples within a section: what most people come for first."""

from pathlib import Path

_FIRST = (
    "plot_impute_weather",
    "plot_mixed_table",
    "plot_forecast",
    "plot_week_gap",
    "plot_panel",
    "plot_monthly",
    "plot_calibration",
    "plot_multiple_imputation",
    "plot_sensitivity",
    "plot_score_sde",
    "plot_generate_table",
    "plot_outliers",
    "plot_conditional_draws",
    "plot_langevin_150_modes",
    "plot_posterior_positive",
)


def by_importance(path):
    """Key of an example: its place in the list, then the others by name."""
    name = Path(path).stem
    return _FIRST.index(name) if name in _FIRST else len(_FIRST), name
