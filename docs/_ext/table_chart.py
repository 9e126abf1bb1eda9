"""Charts of tables: a dot for each figure, with its spread, one row for each method or data set."""

from dataclasses import dataclass

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

INK = {"light": "#222832", "dark": "#e8eaed"}
GRID = {"light": "#d0d5da", "dark": "#4a5158"}
OURS = {"light": "#b3440a", "dark": "#ffb454"}
OTHERS = {
    "light": ["#0b4f6c", "#6f4e9c", "#2b7a3d", "#7a7a7a", "#a8327e"],
    "dark": ["#8fd3f4", "#c9a9f5", "#8fd694", "#bdbdbd", "#f29ac9"],
}
MARKS = "osD^vP"


@dataclass
class Row:
    """A label and (value, low, high) in each column, None where a cell is empty."""

    label: str
    cells: list


def against(rows, columns, other, how):
    """Rows with each cell over, or less, that of a column of the same row; that column dropped."""
    if not how:
        return rows, columns
    position = columns.index(other) if other in columns else None
    changed = []
    for row in rows:
        values = [cell[0] for cell in row.cells if cell]
        base = row.cells[position][0] if position is not None else min(values)
        move = (lambda x, b=base: x / b) if how == "ratio" else (lambda x, b=base: x - b)
        kept = [cell for i, cell in enumerate(row.cells) if how == "ratio" or i != position]
        changed.append(Row(row.label, [cell and tuple(map(move, cell)) for cell in kept]))
    names = [c for i, c in enumerate(columns) if how == "ratio" or i != position]
    return changed, names


def draw_chart(path, rows, columns, options, mode):
    """Draw rows into a file, as series of one panel or as a panel for each column."""
    other, _, how = options.get("against", "").partition(";")
    rows, columns = against(rows, columns, other.strip(), how.strip())
    style = {
        **{f"{part}.color": INK[mode] for part in ("text", "xtick", "ytick")},
        **{"axes.labelcolor": INK[mode], "axes.edgecolor": GRID[mode], "font.size": 10.5},
        **{"svg.hashsalt": "skdiffusion", "axes.facecolor": "none", "figure.facecolor": "none"},
    }
    with plt.rc_context(style):
        panels = 1 if "series" in options else len(columns)
        size = (7.2, 0.8 + (0.36 if panels == 1 else 0.32) * len(rows))
        figure, axes = plt.subplots(1, panels, figsize=size, sharey=True, squeeze=False)
        if panels == 1 and "series" in options:
            draw_series(axes[0, 0], rows, columns, options, mode)
        else:
            for i, (ax, column) in enumerate(zip(axes[0], columns)):
                draw_panel(ax, rows, i, options, mode)
                ax.set_xlabel(column)
        for ax in axes[0]:
            finish(ax, rows, options, mode)
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


def draw_panel(ax, rows, column, options, mode):
    """One column: what is ours in its own colour."""
    for y, row in enumerate(rows):
        ours = options.get("ours", "skdiffusion") in row.label
        draw_cell(ax, y, row.cells[column], OURS[mode] if ours else OTHERS[mode][0], "o")
    right = options.get("right", "")
    for part in right.split(";") if right else ():
        name, _, value = part.rpartition("=")
        if name.strip() == options["columns"][column]:
            ax.axvline(float(value), color=OURS[mode], linestyle=":", linewidth=1.2)


def draw_series(ax, rows, columns, options, mode):
    """All columns in one panel, each with its colour and its mark."""
    colours = iter(OTHERS[mode] * 2)
    for i, column in enumerate(columns):
        ours = options.get("ours", "ScoreSDE") in column
        colour, mark = OURS[mode] if ours else next(colours), MARKS[i % len(MARKS)]
        for y, row in enumerate(rows):
            shift = 0.5 * (i / max(len(columns) - 1, 1) - 0.5)
            draw_cell(ax, y + shift, row.cells[i], colour, mark)
        ax.plot([], [], mark, color=colour, label=column)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False, fontsize=9.5)


def draw_cell(ax, y, cell, colour, mark):
    """A mark at the value, a line from its low to its high end."""
    if cell is not None:
        value, low, high = cell
        ax.plot([low, high], [y, y], color=colour, linewidth=1.6, alpha=0.7)
        ax.plot([value], [y], mark, color=colour, markersize=6)


def finish(ax, rows, options, mode):
    """Scale, labels and lines of a panel."""
    scale = options.get("scale", "linear")
    if scale == "symlog":
        ax.set_xscale("symlog", linthresh=1)
    else:
        ax.set_xscale(scale)
    ax.xaxis.set_major_formatter("{x:g}")
    if "less" in options.get("against", ""):
        ax.axvline(0, color=OURS[mode], linestyle=":", linewidth=1.2)
    ax.set_yticks(range(len(rows)), [row.label for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.grid(axis="both", color=GRID[mode], linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    if "xlabel" in options:
        ax.set_xlabel(options["xlabel"])
