"""What users can reach is listed, documented, and its examples run."""

import configparser
import doctest
import importlib
import inspect
import pkgutil
import re
import types
from pathlib import Path

import pytest
from numpydoc.validate import validate

import skdiffusion

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = sorted([REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")])
LENIENT = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
MODULES = [
    "skdiffusion",
    *(module.name for module in pkgutil.walk_packages(skdiffusion.__path__, "skdiffusion.")),
]
PACKAGES = [name for name in MODULES if hasattr(importlib.import_module(name), "__path__")]
# Chapters of a floor re-export its names for readers of formulas; the floors are what users import.
FLOORS = [name for name in PACKAGES if name.count(".") < 2]


def public_objects():
    """Full names of the functions and classes that the packages export, each object once."""
    found = {}
    for package_name in FLOORS:
        package = importlib.import_module(package_name)
        for name in getattr(package, "__all__", ()):
            value = getattr(package, name)
            if inspect.isroutine(value) or inspect.isclass(value):
                found[value] = f"{package_name}.{name}"
    return sorted(found.values())


def public_methods():
    """Full names of the public methods written in this project."""
    for name in public_objects():
        value = resolve(name)
        for method, function in vars(value).items() if inspect.isclass(value) else ():
            if inspect.isfunction(function) and not method.startswith("_"):
                yield f"{name}.{method}"


def resolve(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def numpydoc_checks():
    """Return the checks that setup.cfg asks of docstrings, so that there is one list."""
    config = configparser.ConfigParser()
    config.read(REPOSITORY / "setup.cfg")
    return set(config["tool:numpydoc_validation"]["checks"].replace(" ", "").split(","))


def complaints(name, checks):
    return [f"{code}: {text}" for code, text in validate(name)["errors"] if code in checks]


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_list_what_is_public(name):
    package = importlib.import_module(name)
    public = {
        attribute
        for attribute, value in vars(package).items()
        if not attribute.startswith("_") and not isinstance(value, types.ModuleType)
    }
    listed = getattr(package, "__all__", [])
    assert len(listed) == len(set(listed))
    assert set(listed) - {"__version__"} == public


@pytest.mark.parametrize("name", public_objects())
def test_public_objects_are_documented_with_an_example(name):
    assert complaints(name, numpydoc_checks() | {"EX01"}) == []


@pytest.mark.parametrize("name", list(public_methods()))
def test_public_methods_are_documented(name):
    assert complaints(name, numpydoc_checks()) == []


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings_run(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=LENIENT)
    assert result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_of_pages_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # The fence that ends a code block would count as expected output.
    text = re.sub("^```.*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    examples = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert doctest.DocTestRunner(optionflags=LENIENT).run(examples).failed == 0


@pytest.mark.parametrize("package", ["estimators", "metrics", "datasets", "nn", "persistence"])
def test_the_reference_lists_what_is_public(package):
    pages = (REPOSITORY / "docs" / "api").glob("*.rst")
    listed = " ".join(page.read_text(encoding="utf-8") for page in pages).split()
    public = importlib.import_module(f"skdiffusion.{package}").__all__
    assert set(public) <= set(listed)
