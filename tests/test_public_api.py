"""What users can reach is listed, documented, and its examples run."""

import configparser
import doctest
import importlib
import inspect
import pkgutil
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


def public_objects():
    """Full names of the functions and classes that the packages export."""
    for package_name in PACKAGES:
        package = importlib.import_module(package_name)
        for name in getattr(package, "__all__", ()):
            if inspect.isroutine(getattr(package, name)) or inspect.isclass(getattr(package, name)):
                yield f"{package_name}.{name}"


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
    assert len(package.__all__) == len(set(package.__all__))
    assert set(package.__all__) - {"__version__"} == public


@pytest.mark.parametrize("name", list(public_objects()))
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
    result = doctest.testfile(
        str(page), module_relative=False, encoding="utf-8", optionflags=LENIENT
    )
    assert result.failed == 0
