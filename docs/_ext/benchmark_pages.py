"""What the pages of benchmarks are made of: charts and folded tables of the stored results.

``{benchmark-chart}`` draws a table of ``benchmarks/results``, ``{benchmark-tables}`` shows files of
results, folded. Both read what the scripts have written, when the site is built.
"""

import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective
from table_chart import Row, draw_chart

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
NUMBER = r"[-−]?\d+(?:\.\d+)?"


def tables_of(text):
    """Tables of a page in Markdown by the heading above them: a header and rows of cells each."""
    heading, tables = "", {}
    for line in text.splitlines():
        if line.startswith("#"):
            heading = "" if line.startswith("# ") else line.lstrip("# ")
        elif line.startswith("|"):
            cells = [cell.strip().replace("**", "") for cell in line.strip("|").split("|")]
            tables.setdefault(heading, []).append(cells)
    return {name: (rows[0], rows[2:]) for name, rows in tables.items()}


def read_cell(cell):
    """Value, lower and upper end of ``0.25 ± 0.01`` or ``0.25 (0.24-0.27)``; None if empty."""
    found = re.match(rf">? ?({NUMBER})(?: ?± ?({NUMBER})| \(({NUMBER})-({NUMBER})\))?", cell)
    if found is None:
        return None
    value, error, low, high = (None if x is None else float(x) for x in found.groups())
    if error is not None:
        return value, value - error, value + error
    return value, value if low is None else low, value if high is None else high


def rows_of(name, heading, labels, columns, pattern):
    """Rows of a table whose label fits a pattern, each with its values in the columns asked for."""
    tables = tables_of((RESULTS / name).read_text(encoding="utf-8"))
    if heading not in tables or not set(labels + columns) <= set(tables[heading][0]):
        raise LookupError(f"{name} has no table {heading!r} with columns {labels + columns}")
    header, lines = tables[heading]
    rows = []
    for line in lines:
        label = ", ".join(line[header.index(column)] for column in labels)
        # Sizes of the table and seeds are for the table alone.
        label = re.sub(r",[\d /]+,[\d ]+$", "", label)
        if re.search(pattern, label):
            rows.append(Row(label, [read_cell(line[header.index(column)]) for column in columns]))
    return rows


def as_list(argument):
    """Parts of an argument, at semicolons."""
    return [part.strip() for part in argument.split(";")]


class BenchmarkChart(SphinxDirective):
    """A picture of one table, in the colours of the light and of the dark page."""

    required_arguments = 1
    has_content = True
    option_spec = {
        "table": directives.unchanged,
        "rows": directives.unchanged,
        "labels": as_list,
        "columns": as_list,
        "series": directives.flag,
        "against": directives.unchanged,
        "scale": directives.unchanged,
        "right": directives.unchanged,
        "xlabel": directives.unchanged,
        "ours": directives.unchanged,
    }

    def run(self):
        """Draw the table and show it; the content is the caption."""
        name = self.arguments[0]
        self.env.note_dependency(str(RESULTS / name))
        self.env.note_dependency(str(Path(__file__).with_name("table_chart.py")))
        labels = self.options.get("labels", ["method"])
        columns = self.options["columns"]
        pattern = self.options.get("rows", "")
        try:
            rows = rows_of(name, self.options.get("table", ""), labels, columns, pattern)
        except LookupError as error:
            raise self.error(str(error)) from error
        folder = Path(self.env.srcdir) / "benchmarks" / "charts"
        folder.mkdir(exist_ok=True)
        # Not a figure: beside a picture for the dark alone the theme hides the caption.
        chart = nodes.container(classes=["benchmark-chart"])
        scrolling = nodes.container(classes=["benchmark-picture"])
        caption = " ".join(self.content)
        for mode in ("light", "dark"):
            file = folder / f"{Path(self.env.docname).name}-{Path(name).stem}-{mode}.svg"
            draw_chart(file, rows, columns, self.options, mode)
            image = nodes.image(uri=f"charts/{file.name}", alt=caption, classes=[f"only-{mode}"])
            scrolling += image
        text, messages = self.parse_inline(caption)
        chart += scrolling
        chart += nodes.paragraph(caption, "", *text)
        return [chart, *messages]


class BenchmarkTables(SphinxDirective):
    """Files of results, behind a line that opens them."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self):
        """Parse the files without their titles, headings as headings of no section."""
        shown = [nodes.raw("", "<details><summary>All tables, and how they came about</summary>")]
        for name in as_list(self.arguments[0]):
            self.env.note_dependency(str(RESULTS / name))
            text = (RESULTS / name).read_text(encoding="utf-8")
            text = re.sub(r"\A# .*\n", "", text)
            text = re.sub(r"^#+ (.*)$", r"```{rubric} \1\n```", text, flags=re.MULTILINE)
            shown += self.parse_text_to_nodes(text)
        shown.append(nodes.raw("", "</details>"))
        for node in (shown[0], shown[-1]):
            node["format"] = "html"
        return shown


def add_the_rest(app, docname, source):
    """End the list of benchmarks with results that have no page of their own yet."""
    if docname == "benchmarks/index":
        pages = [p.read_text(encoding="utf-8") for p in RESULTS.parent.glob("*.md")]
        for path in sorted(RESULTS.glob("*.md")):
            if not any(path.name in page for page in pages):
                title = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
                source[0] += f"\n\n## {title}\n\n```{{benchmark-tables}} {path.name}\n```\n"


def setup(app):
    """Register the directives."""
    app.add_directive("benchmark-chart", BenchmarkChart)
    app.add_directive("benchmark-tables", BenchmarkTables)
    app.connect("source-read", add_the_rest)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
