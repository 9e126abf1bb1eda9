"""The check of the built site finds what is planted; pages of benchmarks say what was measured."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
BENCHMARKS = DOCS / "benchmarks"
PAGES = sorted(p for p in BENCHMARKS.glob("*.md") if "{benchmark-tables}" in p.read_text("utf-8"))
# As in the theme, what surrounds the article may scroll, which is no excuse for what is in it.
PAGE = (
    '<body><header class="bd-header"><a>in</a></header><div style="overflow-x: auto">'
    '<article class="bd-article">{}</article></div></body>'
)


def load_check():
    spec = importlib.util.spec_from_file_location("check_site", DOCS / "check_site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_site = load_check()


def write(site, **pages):
    for name, body in pages.items():
        (site / f"{name}.html").write_text(PAGE.format(body), encoding="utf-8")


def test_a_site_without_faults_has_none(tmp_path):
    body = '<h2 id="a%b">A</h2><a href="two.html#there">x</a><a href="#a%25b">y</a>'
    write(tmp_path, one=body, two='<p id="there"><a href="https://example.org/x">z</a></p>')
    assert list(check_site.broken_links(tmp_path)) == []


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ("nowhere.html", "no file"),
        ("two.html#gone", "no heading"),
        ("#gone", "no heading"),
        ("../outside.html", "no file"),
    ],
)
def test_a_planted_broken_link_is_found(tmp_path, link, fault):
    write(tmp_path, one=f'<a href="{link}">x</a>', two="")
    (found,) = check_site.broken_links(tmp_path)
    assert found.startswith(f"one.html: {link}")
    assert found.endswith(fault)


@pytest.mark.parametrize("tag", ['<img src="gone.png">', '<script src="gone.js"></script>'])
def test_a_missing_picture_or_script_is_found(tmp_path, tag):
    write(tmp_path, one=tag)
    assert len(list(check_site.broken_links(tmp_path))) == 1


@pytest.mark.skipif(check_site.find_browser() is None, reason="needs Chromium")
def test_faults_that_only_a_browser_sees_are_found(tmp_path):
    write(
        tmp_path,
        good='<p>short</p><div style="overflow-x: auto"><pre style="width: 900px">x</pre></div>',
        wide='<p style="width: 900px">long</p>',
        script="<script>undefined_function()</script>",
        formula='<span class="math">\\(x^2\\)</span>',
        outside='<img src="http://127.0.0.2:9/x.png" alt="">',
        under='<style>header{position:fixed;top:0;height:90px}</style><h2 id="a">A'
        '<a class="headerlink" href="#a">#</a></h2><p style="height: 5000px"></p>',
        bar="<style>header a {position: absolute; left: 1200px}</style>",
    )
    found = sorted(check_site.seen_in_browser(tmp_path, check_site.find_browser()))
    kinds = {text.split(":")[0] for text in found if "favicon" not in text}
    assert kinds == {f"{n}.html" for n in ("wide", "script", "formula", "outside", "under", "bar")}
    for part in (
        "cut at 390",
        "undefined_function",
        "not rendered",
        "another machine",
        "the bar",
        "970",
    ):
        assert any(part in text for text in found), part


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_numbers_on_top_of_a_page_of_benchmarks_stand_in_its_tables(page):
    text = page.read_text(encoding="utf-8")
    opening = text.split("```", 1)[0]
    files = re.search(r"\{benchmark-tables\} (.*)", text)[1].split(";")
    results = " ".join((BENCHMARKS / "results" / f.strip()).read_text("utf-8") for f in files)
    quoted = set(re.findall(r"(?<![\w.])\d+\.\d{2,}", opening))
    assert quoted <= set(re.findall(r"\d+\.\d+", results))
