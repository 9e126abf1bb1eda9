"""Arrays and their types as nodes of a header and tensors of a safetensors file."""

import numpy as np

from skdiffusion._file import ModelFileError

# Types that safetensors has. Others go as bytes, beside their type.
_NATIVE = ("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
_NATIVE += ("float16", "float32", "float64")
# Kinds of types without objects in them: numbers, dates, text, records.
_PLAIN_KINDS = "biufcmMSUV"


def type_node(dtype):
    """A type as a node; None for one that refers to objects."""
    if dtype.kind not in _PLAIN_KINDS or dtype.hasobject or dtype.subdtype is not None:
        return None
    if dtype.names is None:
        return dtype.str
    formats = [type_node(dtype.fields[name][0]) for name in dtype.names]
    has_titles = len(dtype.fields) > len(dtype.names)
    if None in formats or has_titles:
        return None
    offsets = [dtype.fields[name][1] for name in dtype.names]
    return {
        "names": list(dtype.names),
        "formats": formats,
        "offsets": offsets,
        "itemsize": dtype.itemsize,
    }


def type_of_node(node):
    """The type of a node."""
    if isinstance(node, dict):
        formats = [type_of_node(one) for one in node["formats"]]
        dtype = np.dtype({**node, "formats": formats})
    else:
        dtype = np.dtype(str(node))
    if type_node(dtype) is None:
        raise ModelFileError(f"the type {node!r} is not read")
    return dtype


class ArrayStore:
    """Arrays that are written, by names that nodes refer to.

    Parameters
    ----------
    tensors : dict of str to ndarray, optional
        Arrays that were read.
    """

    def __init__(self, tensors=None):
        self.tensors = {} if tensors is None else tensors

    def put(self, array):
        """Keep an array; return its node, None for one that refers to objects."""
        dtype = type_node(array.dtype)
        if dtype is None:
            return None
        name = str(len(self.tensors))
        node = {"array": name}
        axes = sorted(range(array.ndim), key=lambda i: -array.strides[i])
        if array.transpose(axes).flags.c_contiguous and not array.flags.c_contiguous:
            # The order of cells in memory decides on the rounding of products.
            node["axes"], array = axes, array.transpose(axes)
        flat = np.asarray(array, order="C")
        if flat.dtype.name not in _NATIVE or not flat.dtype.isnative:
            node |= {"dtype": dtype, "shape": list(flat.shape)}
            flat = np.frombuffer(flat.tobytes(), np.uint8)
        self.tensors[name] = flat
        return node

    def take(self, node):
        """The array of a node."""
        array = self.tensors[node["array"]]
        if "dtype" in node:
            shape = tuple(int(n) for n in node["shape"])
            array = np.ndarray(shape, type_of_node(node["dtype"]), _whole(array, node))
        return array.transpose(np.argsort(node["axes"])) if "axes" in node else array


def _whole(array, node):
    """Bytes of an array, as many as its shape and type say."""
    size = type_of_node(node["dtype"]).itemsize
    for n in node["shape"]:
        size *= int(n)
    if size != array.nbytes or min([0, *node["shape"]]) < 0:
        raise ModelFileError(f"an array of {array.nbytes} bytes has the shape {node['shape']}")
    # A buffer of its own, which can be written to; an empty one must not be empty.
    return bytearray(array.tobytes() or b"\0")
