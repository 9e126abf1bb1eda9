"""The allow-list: names of the classes and functions that a file may hold.

No name of a file is imported. It is looked up here, and what is not here is refused, when a file is
written as well as when it is read.
"""

import functools
import importlib

import numpy as np
import scipy.special
from torch import distributions, nn
from torch.distributions import Distribution, Transform, constraints, transforms

from skdiffusion.persistence._own import MOVED, own_types

# Public modules of scikit-learn and their classes. Left out is what runs the user's functions, and
# what reads memory by numbers that a file could forge, such as support vector machines.
_SKLEARN = {
    "calibration": "CalibratedClassifierCV _CalibratedClassifier _SigmoidCalibration",
    "cluster": "KMeans MiniBatchKMeans",
    "compose": "ColumnTransformer TransformedTargetRegressor make_column_selector",
    "compose._column_transformer": "_RemainderColsList",
    "decomposition": "FactorAnalysis FastICA IncrementalPCA KernelPCA NMF PCA TruncatedSVD",
    "discriminant_analysis": "LinearDiscriminantAnalysis QuadraticDiscriminantAnalysis",
    "dummy": "DummyClassifier DummyRegressor",
    "ensemble": "ExtraTreesClassifier ExtraTreesRegressor HistGradientBoostingClassifier "
    "HistGradientBoostingRegressor RandomForestClassifier RandomForestRegressor",
    "ensemble._hist_gradient_boosting.binning": "_BinMapper",
    "ensemble._hist_gradient_boosting.predictor": "TreePredictor",
    "feature_selection": "SelectFpr SelectKBest SelectPercentile VarianceThreshold",
    "frozen": "FrozenEstimator",
    "impute": "KNNImputer MissingIndicator SimpleImputer",
    "impute._iterative": "IterativeImputer _ImputerTriplet",
    "isotonic": "IsotonicRegression",
    "kernel_approximation": "Nystroem RBFSampler",
    "linear_model": "ARDRegression BayesianRidge ElasticNet ElasticNetCV GammaRegressor "
    "HuberRegressor Lasso LassoCV LinearRegression LogisticRegression LogisticRegressionCV "
    "PoissonRegressor QuantileRegressor Ridge RidgeCV RidgeClassifier SGDClassifier SGDRegressor "
    "TweedieRegressor",
    "mixture": "BayesianGaussianMixture GaussianMixture",
    "naive_bayes": "BernoulliNB GaussianNB",
    "neighbors": "KNeighborsClassifier KNeighborsRegressor KernelDensity",
    "neural_network": "MLPClassifier MLPRegressor",
    "pipeline": "FeatureUnion Pipeline",
    "preprocessing": "Binarizer FunctionTransformer KBinsDiscretizer LabelBinarizer LabelEncoder "
    "MaxAbsScaler MinMaxScaler MultiLabelBinarizer Normalizer OneHotEncoder OrdinalEncoder "
    "PolynomialFeatures PowerTransformer QuantileTransformer RobustScaler SplineTransformer "
    "StandardScaler TargetEncoder",
    "random_projection": "GaussianRandomProjection SparseRandomProjection",
    "svm": "LinearSVC LinearSVR",
    "tree": "DecisionTreeClassifier DecisionTreeRegressor ExtraTreeClassifier ExtraTreeRegressor",
    "utils._metadata_requests": "MethodMetadataRequest MetadataRequest",
    "_loss.link": "IdentityLink Interval LogLink LogitLink MultinomialLogit",
    "_loss.loss": "AbsoluteError HalfBinomialLoss HalfGammaLoss HalfMultinomialLoss "
    "HalfPoissonLoss HalfSquaredError PinballLoss",
}
# Extension classes that are made by a call, with the arguments that they give themselves.
_CALLED = {
    "_loss._loss": "CyAbsoluteError CyHalfBinomialLoss CyHalfGammaLoss CyHalfMultinomialLoss "
    "CyHalfPoissonLoss CyHalfSquaredError CyPinballLoss",
    "tree._tree": "Tree",
}
_LAYERS = (
    "Identity Linear Sequential ModuleList ModuleDict ReLU LeakyReLU ELU GELU SiLU Softplus Tanh "
    "Sigmoid LayerNorm Dropout Embedding Conv1d"
)
_FUNCTIONS = {
    "sklearn.feature_selection": "f_classif f_regression mutual_info_classif "
    "mutual_info_regression chi2",
}
_BUILTIN = {"builtins.bool": bool, "builtins.complex": complex, "builtins.float": float}
_BUILTIN |= {"builtins.int": int, "builtins.object": object, "builtins.str": str}
_UFUNCS = {"numpy": np, "scipy.special": scipy.special}


def _of_sklearn(table):
    """Full names and their modules."""
    for module, names in table.items():
        for name in names.split():
            yield f"sklearn.{module}.{name}", f"sklearn.{module}"


_PLACES = dict(_of_sklearn(_SKLEARN))
_CALLED_PLACES = dict(_of_sklearn(_CALLED))


def _of_torch():
    """Distributions, their transforms and constraints, and layers."""
    for module, kind in (
        (distributions, Distribution),
        (transforms, Transform),
        (constraints, constraints.Constraint),
    ):
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, kind):
                yield f"{value.__module__}.{value.__qualname__}", value
    for name in _LAYERS.split():
        yield f"torch.nn.{name}", getattr(nn, name)


_TORCH = dict(_of_torch())


def _found(name, places):
    """What a name of a table of places stands for; None where this version does not have it."""
    try:
        return getattr(importlib.import_module(places[name]), name.rpartition(".")[2], None)
    except ImportError:
        return None


def type_named(name):
    """Class of a name on the list, None for others."""
    name = MOVED.get(name, name)
    if name in _PLACES:
        return _found(name, _PLACES)
    return own_types().get(name, _TORCH.get(name))


@functools.cache
def name_of_type(kind):
    """Name on the list of a class, None where it is not there."""
    if (own := f"{kind.__module__}.{kind.__qualname__}") in own_types() or own in _TORCH:
        return own if type_named(own) is kind else None
    names = [n for n in [*_PLACES, *_TORCH] if n.endswith(f".{kind.__name__}")]
    return next((name for name in names if type_named(name) is kind), None)


def called_named(name):
    """Extension class of a name on the list of those that are called, None for others."""
    return _found(name, _CALLED_PLACES) if name in _CALLED_PLACES else None


def name_of_called(kind):
    """Name of an extension class on that list, None where it is not there."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    return name if called_named(name) is kind else None


def object_named(name):
    """Function or class that a file refers to by name, None for others."""
    module, _, last = name.rpartition(".")
    if name in _BUILTIN:
        return _BUILTIN[name]
    if module in _UFUNCS:
        value = vars(_UFUNCS[module]).get(last)
        is_plain = isinstance(value, np.ufunc) or (
            isinstance(value, type) and issubclass(value, np.generic)
        )
        return value if is_plain else None
    if last in _FUNCTIONS.get(module, "").split():
        return getattr(importlib.import_module(module), last, None)
    return type_named(name)


def name_of_object(value):
    """Name of a function or class that :func:`object_named` finds again, None for others."""
    last = getattr(value, "__name__", "")
    names = [f"{module}.{last}" for module in [*_UFUNCS, "builtins", *_FUNCTIONS]]
    if isinstance(value, type):
        names.append(name_of_type(value) or "")
    return next((name for name in names if object_named(name) is value), None)
