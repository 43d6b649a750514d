"""Programs built from Go modules: once, from what go.sum locks, and kept in the user's cache.

`build(HELM)` returns the folder that holds `helm`; gobuild.catalogue says which programs there are.
"""

from gobuild.build import MissingError, Program, ProgramSet, build

__all__ = ["MissingError", "Program", "ProgramSet", "build"]
