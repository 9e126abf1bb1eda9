"""What is wrong with a file."""


class ModelFileError(ValueError):
    """A file is damaged, is no file of a model, or holds what is not read.

    Examples
    --------
    >>> import pathlib, skdiffusion, tempfile
    >>> from skdiffusion.persistence import ModelFileError
    >>> path = pathlib.Path(tempfile.mkdtemp(), "model")
    >>> _ = path.write_text("something else")
    >>> try:
    ...     skdiffusion.load(path)
    ... except ModelFileError as error:
    ...     print("no model" in str(error))
    True
    """
