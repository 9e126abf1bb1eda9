"""Types that are taken apart and put together in ways of their own.

Each has a name, a class, a function that takes an object apart to something simpler, which is
encoded in its turn, and one that puts it together again.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.neighbors import BallTree, KDTree
from sklearn.utils import Bunch

from skdiffusion._file import ModelFileError
from skdiffusion.persistence._arrays import type_node, type_of_node

_BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")
_METRICS = {"EuclideanDistance64": "euclidean", "ManhattanDistance64": "manhattan"}
_METRICS["ChebyshevDistance64"] = "chebyshev"


@dataclass(frozen=True)
class Special:
    """How objects of a type are taken apart, to None where that is not possible, and put together.

    Attributes
    ----------
    kind : type
        Their class, with its subclasses.
    apart, together : callable
        The two functions.
    """

    kind: type
    apart: Callable
    together: Callable


def _type_node(dtype):
    """That of objects is no type of stored arrays, but a frame can have it."""
    return "object" if dtype.kind == "O" else type_node(dtype)


def _type(node):
    return np.dtype(object) if node == "object" else type_of_node(node)


def _scalar(node):
    return np.frombuffer(bytes.fromhex(node[1]), type_of_node(node[0]))[0]


def _scalar_node(value):
    dtype = type_node(value.dtype)
    return None if dtype is None else (dtype, value.tobytes().hex())


def _masked(parts):
    data, mask, fill_value = parts
    return np.ma.MaskedArray(data, mask=mask, fill_value=fill_value)


def _random_state(state):
    made = np.random.RandomState(_bit_generator(state["bit_generator"]))
    made.set_state(state)
    return made


def _generator(state):
    bits = _bit_generator(state["bit_generator"])
    bits.state = state
    return np.random.Generator(bits)


def _bit_generator(name):
    if name not in _BIT_GENERATORS:
        raise ModelFileError(f"there is no generator {name!r}")
    return getattr(np.random, name)(0)


def _tensor_parts(tensor):
    """Values, type and whether a gradient is wanted; types that numpy lacks are left out."""
    if tensor.layout != torch.strided or tensor.dtype == torch.bfloat16:
        return None
    return tensor.detach().cpu().numpy(), tensor.requires_grad


def _tensor(parts):
    values, requires_grad = parts
    return torch.from_numpy(np.array(values)).requires_grad_(bool(requires_grad))


def _torch_generator_parts(generator):
    on_cpu = generator.device.type == "cpu"
    return generator.get_state().numpy() if on_cpu else None


def _torch_generator(state):
    made = torch.Generator()
    made.set_state(torch.from_numpy(np.array(state)))
    return made


def _torch_type(name):
    value = getattr(torch, name, None)
    if not isinstance(value, torch.dtype):
        raise ModelFileError(f"torch has no type {name!r}")
    return value


def _tree_parts(tree):
    """What a tree of points is made from."""
    state = tree.__getstate__()
    metric = _METRICS.get(type(state[-2]).__name__)
    return None if metric is None else (np.array(tree.data), state[4], metric, state[-1])


def _tree_maker(kind):
    def together(parts):
        data, leaf_size, metric, weight = parts
        if metric not in _METRICS.values():
            raise ModelFileError(f"there is no metric {metric!r}")
        # Built again, not read: a search follows the numbers of a tree wherever they lead.
        options = {} if weight is None else {"sample_weight": weight}
        return kind(data, leaf_size=leaf_size, metric=metric, **options)

    return together


def _pandas_type_parts(dtype):
    """Categories and order, or the name of a type that leads back to it."""
    import pandas as pd

    if isinstance(dtype, pd.CategoricalDtype):
        return "category", dtype.categories, dtype.ordered
    try:
        return str(dtype) if pd.api.types.pandas_dtype(str(dtype)) == dtype else None
    except TypeError:
        return None


def _pandas_type(parts):
    import pandas as pd

    if isinstance(parts, str):
        return pd.api.types.pandas_dtype(parts)
    return pd.CategoricalDtype(parts[1], ordered=parts[2])


def _index_parts(index):
    """Values of an index without levels, its type and its name."""
    if index.nlevels > 1:
        return None
    values = index.to_numpy()
    return values, index.dtype, index.name


def _index(parts):
    import pandas as pd

    values, dtype, name = parts
    return pd.Index(values, dtype=dtype, name=name)


def _float(name):
    return math.nan if name == "nan" else math.copysign(math.inf, -(name == "-inf") or 1)


# Scalars of numpy come first: some are numbers or texts of Python, too.
SPECIAL = {
    "bunch": Special(Bunch, lambda b: list(b.items()), lambda pairs: Bunch(**dict(pairs))),
    "scalar": Special(np.generic, _scalar_node, _scalar),
    "float": Special(float, repr, _float),
    "complex": Special(complex, lambda z: (z.real, z.imag), lambda parts: complex(*parts)),
    "bytes": Special(bytes, bytes.hex, bytes.fromhex),
    "slice": Special(slice, lambda s: (s.start, s.stop, s.step), lambda parts: slice(*parts)),
    "range": Special(range, lambda r: (r.start, r.stop, r.step), lambda parts: range(*parts)),
    "ordered dict": Special(OrderedDict, lambda d: list(d.items()), OrderedDict),
    "dtype": Special(np.dtype, _type_node, _type),
    "masked array": Special(
        np.ma.MaskedArray, lambda a: (np.array(a.data), np.array(a.mask), a.fill_value), _masked
    ),
    "random state": Special(
        np.random.RandomState, lambda r: r.get_state(legacy=False), _random_state
    ),
    "generator": Special(np.random.Generator, lambda g: g.bit_generator.state, _generator),
    "parameter": Special(
        torch.nn.Parameter, _tensor_parts, lambda p: torch.nn.Parameter(_tensor((p[0], 0)), p[1])
    ),
    "tensor": Special(torch.Tensor, _tensor_parts, _tensor),
    "torch type": Special(torch.dtype, lambda t: str(t).rpartition(".")[2], _torch_type),
    "torch device": Special(torch.device, str, torch.device),
    "torch size": Special(torch.Size, tuple, torch.Size),
    "torch generator": Special(torch.Generator, _torch_generator_parts, _torch_generator),
    "kd tree": Special(KDTree, _tree_parts, _tree_maker(KDTree)),
    "ball tree": Special(BallTree, _tree_parts, _tree_maker(BallTree)),
}


def pandas_special():
    """The same for types of pandas, which not everybody has."""
    import pandas as pd

    missing = {"NA": pd.NA, "NaT": pd.NaT}
    names = {id(value): name for name, value in missing.items()}
    return {
        "pandas type": Special(pd.api.extensions.ExtensionDtype, _pandas_type_parts, _pandas_type),
        "pandas index": Special(pd.Index, _index_parts, _index),
        "pandas missing": Special(
            (type(pd.NA), type(pd.NaT)), lambda x: names.get(id(x)), missing.__getitem__
        ),
        "time stamp": Special(pd.Timestamp, pd.Timestamp.isoformat, pd.Timestamp),
    }
