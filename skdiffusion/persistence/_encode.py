"""From objects to nodes of a header.

A node is a text, a whole number, a finite number, true, false or null, which stand for themselves,
or an object that says what it is by one of its keys. Objects that are met twice get a number when
they are met again, by which they are referred to, so that what was shared stays shared.
"""

import copyreg
import math
import sys

import numpy as np

from skdiffusion.persistence._allowed import name_of_called, name_of_object, name_of_type
from skdiffusion.persistence._special import SPECIAL, pandas_special

_FUNCTION_REMEDY = (
    "a file holds no code. Take a function that numpy has, such as np.log1p, or set it to None "
    "before saving and set it again after loading, or keep the estimator with joblib, whose files "
    "run code when they are read"
)
_OBJECT_REMEDY = (
    "files hold estimators of skdiffusion and of scikit-learn, arrays and plain values. Replace or "
    "remove it, or keep the estimator with joblib, whose files run code when they are read"
)
_SEARCHES = ("GridSearchCV", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV")


class Encoder:
    """Nodes of objects; their arrays go to a store.

    Parameters
    ----------
    store : ArrayStore
        The store.
    """

    def __init__(self, store):
        self._store, self._place, self._seen, self._n_shared = store, [], {}, 0
        self._special = dict(SPECIAL)
        if "pandas" in sys.modules:
            self._special |= pandas_special()

    def encode(self, value):
        """Node of an object.

        Parameters
        ----------
        value : object
            The object.

        Returns
        -------
        node : object
            What JSON can hold.

        Raises
        ------
        TypeError
            If a part of it cannot be written; the message says where it is.
        """
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float and math.isfinite(value):
            return value
        if id(value) in self._seen:
            return self._reference(self._seen[id(value)][1])
        node = {}
        # The object is kept alive: another one could get its number.
        self._seen[id(value)] = value, node
        node.update(self._fresh(value))
        return node

    def _reference(self, node):
        if "id" not in node:
            node["id"] = self._n_shared
            self._n_shared += 1
        return {"ref": node["id"]}

    def _at(self, place, value):
        self._place.append(place)
        node = self.encode(value)
        self._place.pop()
        return node

    def _items(self, values):
        return [self._at(f"[{i}]", value) for i, value in enumerate(values)]

    def _pairs(self, mapping):
        return [[self.encode(key), self._at(f"[{key!r}]", x)] for key, x in mapping.items()]

    def _fresh(self, value):
        """Node of an object that was not met before."""
        kind = type(value)
        if kind in (list, tuple):
            return {kind.__name__: self._items(value)}
        if kind in (set, frozenset):
            return {kind.__name__: self._items(sorted(value, key=repr))}
        if kind is dict:
            return {"dict": self._pairs(value)}
        if kind is np.ndarray and value.dtype.hasobject and value.dtype.kind == "O":
            return {"objects": self._items(value.ravel().tolist()), "shape": list(value.shape)}
        if kind is np.ndarray:
            return self._store.put(value) or self._refuse(value)
        for name, special in self._special.items():
            if isinstance(value, special.kind):
                return self._taken_apart(name, special, value)
        if (name := name_of_object(value)) is not None:
            return {"named": name}
        return self._object(value)

    def _taken_apart(self, name, special, value):
        apart = special.apart(value)
        if apart is None:
            self._refuse(value)
        return {"special": name, "parts": self.encode(apart)}

    def _object(self, value):
        """Node of an object of a class on the list."""
        kind = type(value)
        name, called = name_of_type(kind), name_of_called(kind)
        if name is None and called is None:
            self._refuse(value)
        make, args, state, items, pairs = (*value.__reduce_ex__(2), None, None, None)[:5]
        if called is not None and make is kind:
            node = {"called": called, "args": self._items(args)}
        elif make is copyreg.__newobj__ and args[0] is kind:
            node = {"object": name}
            if args[1:]:
                node["args"] = self._items(args[1:])
        else:
            self._refuse(value)
        if isinstance(state, dict) and all(isinstance(key, str) for key in state):
            node["state"] = {key: self._at(f".{key}", x) for key, x in state.items()}
        elif state is not None:
            node["other state"] = self.encode(state)
        if pairs is not None:
            node["pairs"] = self._pairs(dict(pairs))
        if items is not None:
            node["items"] = self._items(list(items))
        return node

    def _refuse(self, value):
        """Say what cannot be written, where it is and what to do."""
        kind = type(value)
        is_code = callable(value) and not hasattr(value, "get_params")
        what = f"the {kind.__name__} {value!r}" if is_code else f"a {kind.__name__}"
        if isinstance(value, np.ndarray):
            what = f"an array of type {value.dtype}"
        remedy = _FUNCTION_REMEDY if is_code else _OBJECT_REMEDY
        if kind.__name__ in _SEARCHES:
            remedy = "save what it has found, its best_estimator_"
        place = "".join(self._place).removeprefix(".") or "the estimator"
        raise TypeError(f"{place} is {what}, which cannot be saved: {remedy}.")
