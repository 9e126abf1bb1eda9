"""From nodes of a header to objects. Nothing is imported or called that is not on the list."""

import inspect
from functools import partial

import numpy as np
from sklearn.base import BaseEstimator

from skdiffusion._file import ModelFileError
from skdiffusion.persistence._allowed import called_named, object_named, type_named
from skdiffusion.persistence._special import SPECIAL, pandas_special
from skdiffusion.persistence._trees import check_trees

_PLAIN = (type(None), bool, int, float, str)


class Decoder:
    """Objects of nodes.

    Parameters
    ----------
    store : ArrayStore
        Their arrays.
    """

    def __init__(self, store):
        self._store, self._known = store, {}
        self._makers = {
            "list": self._list,
            "tuple": partial(self._collection, tuple),
            "set": partial(self._collection, set),
            "frozenset": partial(self._collection, frozenset),
            "dict": self._dict,
            "objects": self._objects,
            "array": self._array,
            "special": self._special,
            "named": self._named,
            "called": self._called,
            "object": self._object,
        }

    def decode(self, node):
        """Object of a node.

        Parameters
        ----------
        node : object
            A node as :class:`Encoder` makes it.

        Returns
        -------
        value : object
            The object.

        Raises
        ------
        ModelFileError
            If the node is none.
        """
        if isinstance(node, _PLAIN):
            return node
        if not isinstance(node, dict):
            raise ModelFileError(f"{node!r} is no object")
        if "ref" in node:
            return self._known[node["ref"]]
        for key, make in self._makers.items():
            if key in node:
                return make(node)
        raise ModelFileError(f"nothing is known of {sorted(node)}")

    def _keep(self, node, value):
        """Remember an object that is referred to elsewhere, inside itself too."""
        if "id" in node:
            self._known[node["id"]] = value
        return value

    def _all(self, nodes):
        return [self.decode(node) for node in nodes]

    def _list(self, node):
        made = self._keep(node, [])
        made.extend(self._all(node["list"]))
        return made

    def _dict(self, node):
        made = self._keep(node, {})
        made.update((self.decode(key), self.decode(x)) for key, x in node["dict"])
        return made

    def _collection(self, kind, node):
        return self._keep(node, kind(self._all(node[kind.__name__])))

    def _objects(self, node):
        items, shape = node["objects"], tuple(int(n) for n in node["shape"])
        made = np.empty(len(items), dtype=object)
        self._keep(node, made.reshape(shape))
        for i, item in enumerate(items):
            made[i] = self.decode(item)
        return made.reshape(shape)

    def _array(self, node):
        return self._keep(node, self._store.take(node))

    def _special(self, node):
        special = SPECIAL.get(node["special"]) or pandas_special()[node["special"]]
        return self._keep(node, special.together(self.decode(node["parts"])))

    def _named(self, node):
        return self._keep(node, _on_list(node["named"], object_named))

    def _called(self, node):
        kind = _on_list(node["called"], called_named)
        value = self._keep(node, kind(*self._all(node["args"])))
        return self._with_state(value, node)

    def _object(self, node):
        kind = _on_list(node["object"], type_named)
        args = self._all(node.get("args", ()))
        if args and not issubclass(kind, tuple):
            raise ModelFileError(f"a {kind.__name__} takes no arguments")
        return self._with_state(self._keep(node, kind.__new__(kind, *args)), node)

    def _with_state(self, value, node):
        """Give an object its state, in the way of its class."""
        state = None
        if "state" in node:
            state = {str(key): self.decode(x) for key, x in node["state"].items()}
            state = _with_parameters(type(value), state)
        elif "other state" in node:
            state = self.decode(node["other state"])
        for key, x in node.get("pairs", ()):
            dict.__setitem__(value, self.decode(key), self.decode(x))
        if "items" in node:
            list.extend(value, self._all(node["items"]))
        if state is not None and hasattr(value, "__setstate__"):
            value.__setstate__(state)
        elif state is not None:
            vars(value).update(state)
        check_trees(value)
        return value


def _on_list(name, find):
    """What a name stands for; an error for what is not on the list."""
    found = find(name) if isinstance(name, str) else None
    if found is None:
        raise ModelFileError(f"it refers to {name!r}, which is not read from files")
    return found


def _with_parameters(kind, state):
    """State of an estimator with defaults for parameters that are younger than the file."""
    if not (issubclass(kind, BaseEstimator) and kind.__module__.startswith("skdiffusion.")):
        return state
    parameters = inspect.signature(kind.__init__).parameters.values()
    younger = [p for p in parameters if p.default is not p.empty and p.name not in state]
    return state | {p.name: p.default for p in younger}
