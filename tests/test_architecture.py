"""The import rule: each floor stands on those below it, and nothing happens on import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skdiffusion

ROOT = Path(skdiffusion.__file__).parent
FLOORS = ("diffusion", "nn", "training", "estimators", "inspection")
BESIDE = ("inputs", "columns", "metrics", "datasets")
# What mathematics and networks may use: torch, and the standard library short of input/output.
PURE = {
    "abc",
    "collections",
    "contextlib",
    "copy",
    "dataclasses",
    "enum",
    "functools",
    "itertools",
    "math",
    "operator",
    "torch",
    "typing",
    "warnings",
}
MODULES = sorted(ROOT.rglob("*.py"))


def floor_of(module):
    """Name of the subpackage that holds ``module``, or None for a module at the top."""
    parts = module.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else None


def imported(tree, module):
    """Absolute dotted names that a syntax tree imports, wherever the import stands."""
    package = ["skdiffusion", *module.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # "from skdiffusion import nn" imports the floor, not only the package.
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def reached_floor(name):
    """Floor or side building that an imported name belongs to, or None."""
    parts = name.split(".")
    inside = parts[0] == "skdiffusion" and len(parts) > 1
    return parts[1] if inside and parts[1] in FLOORS + BESIDE else None


def allowed_floors(floor):
    """Subpackages that a floor may import."""
    if floor in BESIDE:
        return set(BESIDE)
    allowed = set(FLOORS[: FLOORS.index(floor) + 1])
    return allowed | set(BESIDE) if floor in ("estimators", "inspection") else allowed


def module_level(tree):
    """The tree without the bodies of its functions: what runs on import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            node.body = []
    return tree


def parse(module):
    return ast.parse(module.read_text(encoding="utf-8"), filename=str(module))


def check(module, tree):
    """Return the imports of one module that break the rule."""
    floor = floor_of(module)
    names = list(imported(tree, module))
    wrong = []
    if floor in FLOORS + BESIDE:
        allowed = allowed_floors(floor)
        wrong += [name for name in names if reached_floor(name) not in allowed | {None}]
    if floor in ("diffusion", "nn"):
        inside = [name for name in names if name.split(".")[0] == "skdiffusion"]
        wrong += [name for name in inside if reached_floor(name) is None]
        wrong += [name for name in names if name.split(".")[0] not in PURE | {"skdiffusion"}]
    if floor in BESIDE:
        wrong += [name for name in names if name.split(".")[0] == "torch"]
    if floor != "inspection":
        wrong += [name for name in names if name.split(".")[0] == "matplotlib"]
    return wrong


def test_every_subpackage_has_its_place():
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders == set(FLOORS + BESIDE)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downwards(module):
    assert check(module, parse(module)) == []


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_optional_packages_are_imported_where_they_are_used(module):
    names = imported(module_level(parse(module)), module)
    assert not {name.split(".")[0] for name in names} & {"matplotlib", "pandas", "lightning_fabric"}


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("diffusion/x.py", "from skdiffusion.nn import Encoder"),
        ("diffusion/x.py", "def f():\n    from sklearn.base import clone"),
        ("diffusion/x.py", "from pathlib import Path"),
        ("nn/x.py", "from .. import training"),
        ("nn/x.py", "import numpy as np"),
        ("training/x.py", "from ..estimators import CSDIImputer"),
        ("training/x.py", "from skdiffusion.metrics import crps_loss"),
        ("estimators/x.py", "import skdiffusion.inspection"),
        ("metrics/x.py", "import torch"),
        ("datasets/x.py", "from skdiffusion import estimators"),
        ("estimators/x.py", "import matplotlib.pyplot as plt"),
    ],
)
def test_the_rule_catches(place, source):
    assert check(ROOT / place, ast.parse(source))


@pytest.mark.parametrize("module", sorted((ROOT / "diffusion").rglob("*.py")), ids=lambda p: p.name)
def test_mathematics_does_no_input_or_output(module):
    called = {
        ast.unparse(node.func) for node in ast.walk(parse(module)) if isinstance(node, ast.Call)
    }
    assert not called & {"open", "print", "input", "torch.load", "torch.save", "torch.manual_seed"}


SIDE_EFFECTS = """
import os, signal, sys, warnings
import numpy as np, torch, sklearn, tqdm, properscoring, scipy

sys.modules.update({name: None for name in ("matplotlib", "pandas")})   # as if not installed
warnings.simplefilter("error")

def state():
    seed, position = np.random.get_state()[1:3]
    return (
        torch.get_rng_state().numpy().tobytes(), seed.tobytes(), position,
        torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(), dict(os.environ), os.getcwd(),
        sorted(os.listdir()), signal.getsignal(signal.SIGINT), repr(np.geterr()),
        sklearn.get_config(), warnings.filters[:],
    )

before = state()
import skdiffusion
from skdiffusion import datasets, diffusion, estimators, inspection, metrics, nn, training
assert state() == before, "importing skdiffusion changed the process"
"""


def test_import_has_no_side_effects(tmp_path):
    """Neither random state nor settings nor files change, and nothing is printed."""
    command = [sys.executable, "-c", SIDE_EFFECTS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
