import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from udfs.features import kernel_cache

SOURCES = Path(kernel_cache.__file__).parents[1]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The sources at another path, as Flink unpacks a wheel."""
    for name in kernel_cache.SOURCES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(SOURCES / name, tmp_path / name)
    monkeypatch.setattr(kernel_cache, "__file__", str(tmp_path / "features" / "kernel_cache.py"))
    return tmp_path


def test_the_same_sources_at_another_path_find_the_same_kernel(elsewhere):
    before = kernel_cache.content_hash()
    (elsewhere / "unrelated.py").write_text("")
    assert kernel_cache.content_hash() == before


@pytest.mark.parametrize("name", kernel_cache.SOURCES)
def test_a_change_in_any_source_finds_another_kernel(elsewhere, name):
    before = kernel_cache.cache_directory()
    (elsewhere / name).write_text((elsewhere / name).read_text() + "\n# changed")
    assert kernel_cache.cache_directory() != before


def test_everything_that_the_kernel_imports_of_ours_is_among_the_sources():
    compiled = [(SOURCES / name).read_text() for name in kernel_cache.SOURCES if name.startswith("features/")]
    imported = re.findall(r"^from (udfs\.\w+\.\w+) import", "\n".join(compiled), re.MULTILINE)
    assert len(imported) > 3
    assert {f"{module.removeprefix('udfs.').replace('.', '/')}.py" for module in imported} <= set(kernel_cache.SOURCES)


def test_a_cache_that_can_not_be_made_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert not kernel_cache.is_usable()


@pytest.mark.parametrize(
    ("program", "function"),
    [
        ("from udfs.features.computer import FeatureComputer; FeatureComputer()", "append_rows"),
        ("import udfs.workers.score_writer", "_write"),
    ],
)
def test_compiled_code_is_kept_there_whichever_module_comes_first(tmp_path, program, function):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert list((tmp_path / "purchase-intent").glob(f"*/*.{function}-*.nbi"))
