"""XGBoost without its interface to scikit-learn, whose import takes most of the time in which a worker starts.

Import XGBoost from here wherever a job or a command may be the first to need it. XGBoost goes without scikit-learn if
its import fails. Later imports of scikit-learn succeed as usual.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _import_fails(package: str) -> Iterator[None]:
    """Make imports of a package fail, unless it has been imported already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None
    try:
        yield
    finally:
        del sys.modules[package]


with _import_fails("sklearn"):
    import xgboost

__all__ = ["xgboost"]
