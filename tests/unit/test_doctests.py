"""The examples in docstrings give what they show."""

import doctest
from importlib import import_module

import pytest

from tools.paths import PROJECT

PACKAGES = ("dashboard", "intent", "jobs", "tools", "training", "udfs")
MODULES = [
    ".".join(path.relative_to(PROJECT).with_suffix("").parts)
    for package in PACKAGES
    for path in sorted((PROJECT / package).rglob("*.py"))
    if ">>> " in path.read_text()
]


def test_there_are_examples():
    assert len(MODULES) > 10


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_hold(module):
    failed, attempted = doctest.testmod(import_module(module))
    assert attempted
    assert not failed
