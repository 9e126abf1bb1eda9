"""Laws of the codec: what goes in comes out, and nothing else does."""

import collections
import datetime
import io
import json
import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.neighbors import BallTree, KDTree
from sklearn.utils import Bunch
from torch import distributions

from skdiffusion._file import ModelFileError
from skdiffusion.columns.bend import Bend
from skdiffusion.persistence._arrays import ArrayStore
from skdiffusion.persistence._decode import Decoder
from skdiffusion.persistence._encode import Encoder


def through(value):
    """A value by way of JSON and the bytes of its arrays."""
    store = ArrayStore()
    text = json.dumps(Encoder(store).encode(value), allow_nan=False)
    tensors = {name: np.copy(array) for name, array in store.tensors.items()}
    return Decoder(ArrayStore(tensors)).decode(json.loads(text))


def same(a, b):
    """Whether two values are alike in types, order in memory and every bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray) and a.dtype.kind == "O":
        return a.shape == b.shape and all(map(same, a.ravel(), b.ravel()))
    if isinstance(a, np.ndarray):
        layout = (a.flags.c_contiguous, a.flags.f_contiguous)
        kept = not any(layout) or layout == (b.flags.c_contiguous, b.flags.f_contiguous)
        return kept and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a), list(b)) and same(list(a.values()), list(b.values()))
    if isinstance(a, float):
        return (a == b and math.copysign(1, a) == math.copysign(1, b)) or (a != a and b != b)
    return a == b


PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(max_size=20),
    st.complex_numbers(allow_nan=False),
)  # fmt: skip
TYPES = st.one_of(
    hnp.boolean_dtypes(), hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(sizes=(16, 32, 64)), hnp.complex_number_dtypes(sizes=(64, 128)),
    hnp.datetime64_dtypes(), hnp.timedelta64_dtypes(), hnp.byte_string_dtypes(max_len=5),
    hnp.unicode_string_dtypes(max_len=5),
    hnp.array_dtypes(hnp.floating_dtypes() | hnp.integer_dtypes(), allow_subarrays=False).filter(
        lambda dtype: len(dtype.fields) == len(dtype.names)  # without titles
    ),
)  # fmt: skip
ARRAYS = TYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
)
HASHED = st.one_of(st.text(), st.integers(), st.tuples(st.integers(), st.text()))
NESTED = st.recursive(
    PLAIN | ARRAYS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(HASHED, inner, max_size=4),
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(NESTED)
def test_nested_values_come_back_as_they_were(value):
    assert same(through(value), value)


@settings(deadline=None)
@given(ARRAYS, st.booleans())
def test_arrays_keep_their_order_in_memory(array, transposed):
    array = array.T if transposed else np.asfortranarray(array)
    assert same(through(array), array)


OTHERS = [
    *(math.inf, -math.inf, -0.0, 5e-324, 2**200, "\ud800", 1.5 + 2j, b"\0", np.float32(0.1)),
    *(np.int8(-3), np.str_("a"), np.datetime64("2024-01-01"), np.bool_(True), np.float64(-0.0)),
    *(slice(1, None, 2), range(3), {1, 2}, frozenset("a"), np.dtype("f4"), np.float32, float),
    *(np.log1p, np.nan_to_num(np.ones(3), copy=True), collections.OrderedDict(b=1, a=2)),
    *(torch.float32, torch.device("cpu"), torch.Size([2, 3]), Bunch(a=1, b=[2])),
    *(np.array([None, "x", 1.5, np.nan], dtype=object)[:3], np.array(7), np.empty((0, 3))),
    *(pd.CategoricalDtype(["b", "a"], ordered=True), pd.Int64Dtype(), pd.StringDtype()),
    *(pd.DatetimeTZDtype("ns", "UTC"), pd.Timestamp("2024-01-01 12:00", tz="UTC")),
]


@pytest.mark.parametrize("value", OTHERS, ids=lambda value: f"{type(value).__name__} {value!r}")
def test_values_come_back(value):
    assert same(through(value), value)


def test_missing_values_of_pandas_are_themselves():
    assert through(pd.NA) is pd.NA
    assert through(pd.NaT) is pd.NaT
    pd.testing.assert_index_equal(
        through(pd.Index(["a", "b"], name="n")), pd.Index(["a", "b"], name="n")
    )


@pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
def test_generators_go_on_where_they_were(make):
    generator = make(0)
    generator.normal(size=3)
    np.testing.assert_array_equal(through(generator).normal(size=5), generator.normal(size=5))


def test_torch_generators_go_on_where_they_were():
    generator = torch.Generator().manual_seed(3)
    again = through(generator)
    assert torch.equal(torch.rand(3, generator=again), torch.rand(3, generator=generator))


def test_tensors_keep_values_types_and_gradients():
    tensor = torch.arange(6.0, dtype=torch.float64).reshape(2, 3).requires_grad_()
    again = through([tensor, torch.nn.Parameter(torch.ones(2)), torch.tensor(3)])
    assert torch.equal(again[0], tensor)
    assert (again[0].dtype, again[0].requires_grad) == (torch.float64, True)
    assert isinstance(again[1], torch.nn.Parameter)
    assert again[2].shape == ()


def test_layers_and_distributions_answer_alike():
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh())
    assert torch.equal(through(net)(torch.ones(2)), net(torch.ones(2)))
    normal = distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    assert torch.equal(through(normal).log_prob(torch.ones(2)), normal.log_prob(torch.ones(2)))


@pytest.mark.parametrize("kind", [KDTree, BallTree])
def test_trees_of_points_answer_alike(kind):
    points = np.random.default_rng(0).normal(size=(50, 3))
    tree = kind(points, leaf_size=5, metric="manhattan")
    for a, b in zip(through(tree).query(points, 4), tree.query(points, 4)):
        np.testing.assert_array_equal(a, b)


def test_what_was_shared_stays_shared():
    array, inner = np.ones(3), []
    loop = [array, {"a": array}, inner, inner]
    loop.append(loop)
    again = through(loop)
    assert again[0] is again[1]["a"]
    assert again[2] is again[3]
    assert again[4] is again
    bend = Bend(array)
    assert through([bend, array])[0].parameters is not array
    first, second = through([bend, bend])
    assert first is second


def test_masked_arrays_keep_their_mask():
    masked = np.ma.MaskedArray([1.0, 2.0], [True, False], fill_value=-1)
    again = through(masked)
    assert (again.mask.tolist(), again.data.tolist(), again.fill_value) == (
        [True, False],
        [1, 2],
        -1,
    )


class Foreign:
    pass


REFUSED = {
    "function": lambda x: x,
    "own class": Foreign(),
    "class": Foreign,
    "bound method": [1].append,
    "file": io.StringIO(),
    "thread": datetime.UTC,
    "subarrays": np.zeros(2, [("a", "f4", (2,))]),
    "records of objects": np.zeros(2, [("a", "O")]),
    "titles": np.zeros(2, [(("title", "name"), "f4")]),
    "frame": pd.DataFrame({"a": [1]}),
    "brain floats": torch.zeros(2, dtype=torch.bfloat16),
    "module": math,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_written_is_named(name):
    with pytest.raises(TypeError, match=r"^\['a'\]\[1\] is .* cannot be saved: .*"):
        through({"a": [0, REFUSED[name]]})


HOSTILE = {
    "a class of Python": {"object": "subprocess.Popen", "state": {}},
    "a function of Python": {"named": "os.system"},
    "a function of numpy": {"named": "numpy.load"},
    "a module of numpy": {"named": "numpy.os"},
    "an imported class": {"object": "skdiffusion.estimators.sampling._plan.np", "state": {}},
    "a dunder": {"named": "numpy.__loader__"},
    "a call of a class": {"called": "builtins.eval", "args": ["1"]},
    "a call of an estimator": {"called": "sklearn.pipeline.Pipeline", "args": [[]]},
    "arguments of an estimator": {"object": "sklearn.pipeline.Pipeline", "args": [[]]},
    "a name that is none": {"object": ["skdiffusion.columns.bend.Bend"]},
    "an unknown key": {"pickle": "gASVBgAAAAAAAACMAmFilC4="},
    "a list in place of an object": [1, 2],
    "a reference to nothing": {"ref": 7},
    "a type of objects": {"special": "dtype", "parts": "O"},
    "a type of records of objects": {
        "special": "dtype",
        "parts": {"names": ["a"], "formats": ["O"], "offsets": [0], "itemsize": 8},
    },
    "an array that is not there": {"array": "0"},
    "a generator of another module": {"special": "random state", "parts": {"bit_generator": "os"}},
    "a type of torch that is none": {"special": "torch type", "parts": "load"},
    "a shape that is too large": {"objects": [], "shape": [10**18, 10**18]},
    "a foreign metric": {"special": "kd tree", "parts": {"tuple": [None, 1, "pyfunc", None]}},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_nodes_are_refused(name):
    with pytest.raises((ModelFileError, KeyError, ValueError, TypeError)):
        Decoder(ArrayStore()).decode(HOSTILE[name])


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [("<U500000000", [1]), ("<c16", [10**15]), ("<M8[s]", [-1]), ("<c16", [2**62, 4])],
)
def test_arrays_are_no_larger_than_their_bytes(dtype, shape):
    store = ArrayStore({"0": np.zeros(16, np.uint8)})
    with pytest.raises(ModelFileError, match="16 bytes"):
        store.take({"array": "0", "dtype": dtype, "shape": shape})


def forged(estimator, change):
    """The estimator by way of nodes and arrays, one array of which is changed."""
    store = ArrayStore()
    node = Encoder(store).encode(estimator)
    tensors = {name: np.copy(array) for name, array in store.tensors.items()}
    change(tensors)
    return Decoder(ArrayStore(tensors)).decode(node)


def records(tensors, dtype):
    """The largest array of bytes, as records."""
    raw = max((t for t in tensors.values() if t.dtype == np.uint8), key=len)
    return raw.view(dtype)


@pytest.mark.parametrize(("field", "value"), [("feature_idx", 99), ("left", 0), ("right", 10**6)])
def test_forged_boosted_trees_are_refused(field, value):
    X = np.random.default_rng(0).normal(size=(200, 2))
    trees = HistGradientBoostingRegressor(max_iter=1).fit(X, X.sum(1))
    np.testing.assert_array_equal(through(trees).predict(X), trees.predict(X))
    dtype = trees._predictors[0][0].nodes.dtype

    def change(tensors):
        records(tensors, dtype)[field][0] = value

    with pytest.raises(ModelFileError, match="leads nowhere"):
        forged(trees, change)


@pytest.mark.parametrize(("field", "value"), [("feature", 99), ("left_child", 0)])
def test_forged_forests_are_refused(field, value):
    X = np.random.default_rng(0).normal(size=(100, 2))
    forest = RandomForestClassifier(1, random_state=0).fit(X, X[:, 0] > 0.1 * X[:, 1])
    np.testing.assert_array_equal(through(forest).predict_proba(X), forest.predict_proba(X))
    dtype = forest.estimators_[0].tree_.__getstate__()["nodes"].dtype

    def change(tensors):
        records(tensors, dtype)[field][0] = value

    with pytest.raises(ModelFileError, match="leads nowhere"):
        forged(forest, change)
