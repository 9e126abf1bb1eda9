"""Which methods of a class the reference describes."""

import importlib
import inspect
import pkgutil

import skdiffusion


def methods_of_classes():
    """Methods that this package wrote, its bases included, by the full name of each class."""
    found = {}
    for module in pkgutil.walk_packages(skdiffusion.__path__, "skdiffusion."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if inspect.isclass(value) and value.__module__.startswith("skdiffusion."):
                found[f"{module.name}.{name}"] = list(own_methods(value))
    return found


def own_methods(value):
    """Public methods of a class that are written here, those of the class itself first."""
    seen = set()
    for base in value.__mro__:
        for name, member in vars(base).items():
            if name in seen or name.startswith(("_", "set_")):
                continue
            seen.add(name)
            # Wrapped methods, such as those that exist under a condition, are found by their name.
            if base.__module__.startswith("skdiffusion.") and is_method(value, name, member):
                yield name


def is_method(value, name, member):
    """Whether a member is a method rather than a property or a constant."""
    if isinstance(member, property) or inspect.isclass(member):
        return False
    return (
        isinstance(member, (staticmethod, classmethod))
        or callable(member)
        or (hasattr(member, "fn") and callable(member.fn))
    )
