"""Fitted estimators in files that hold data alone: written whole, checked, read without pickle."""

from skdiffusion._file import ModelFileError
from skdiffusion.persistence._api import load, save
from skdiffusion.persistence._own import trusted_types

__all__ = ["ModelFileError", "load", "save", "trusted_types"]
