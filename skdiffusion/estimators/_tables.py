"""Draws in the container that ``set_output`` asks for."""

from sklearn.utils._set_output import ADAPTERS_MANAGER, _get_output_config


def container_of(estimator):
    """What ``set_output``, or the global setting, asks for: "default" or a library of frames."""
    return _get_output_config("transform", estimator)["dense"]


def as_table(values, estimator, names):
    """Rows with named columns as ``set_output`` has them; frames keep their columns."""
    container = container_of(estimator)
    if container == "default":
        return values
    adapter = ADAPTERS_MANAGER.adapters[container]
    names = list(getattr(values, "columns", names))
    return adapter.create_container(values, values, columns=names, inplace=False)
