"""Where a display is drawn."""


def axes_for(ax, size):
    """The axes given, or new ones of ``size`` in inches, and their figure."""
    import matplotlib.pyplot as plt

    ax = plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax
    return ax, ax.figure
