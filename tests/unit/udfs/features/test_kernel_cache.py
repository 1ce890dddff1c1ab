import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from udfs.features import kernel_cache

SOURCES = Path(kernel_cache.__file__).parents[1]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The sources at another path, as Flink unpacks a wheel."""
    for name in kernel_cache.SOURCES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(SOURCES / name, tmp_path / name)
    monkeypatch.setattr(kernel_cache, "PACKAGE", tmp_path)
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
    names = ("entry_points", "row_functions", "slot_functions", "user_slots")
    compiled = [(SOURCES / "features" / f"{name}.py").read_text() for name in names]
    imported = re.findall(r"^from (udfs\.\w+\.\w+) import", "\n".join(compiled), re.MULTILINE)
    assert len(imported) > 3
    assert {f"{module.removeprefix('udfs.').replace('.', '/')}.py" for module in imported} <= set(kernel_cache.SOURCES)


def test_a_cache_that_can_not_be_made_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert not kernel_cache.is_usable()


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """A cache that these tests fill, each with other functions, as compiling all in each takes many seconds."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "function"),
    [
        (
            "from udfs.contracts.packed_events import EVENT; from udfs.features.kernel import slot_functions;"
            "slot_functions(EVENT)",
            "mark_repeated",
        ),
        ("import udfs.workers.score_writer", "_write"),
    ],
)
def test_compiled_code_is_kept_there_whichever_module_comes_first(cache, program, function):
    subprocess.run([sys.executable, "-c", program], env=os.environ | {"XDG_CACHE_HOME": str(cache)}, check=True)
    assert list((cache / "purchase-intent").glob(f"*/*.{function}-*.nbi"))


@pytest.mark.slow
def test_kernels_that_several_processes_have_compiled_do_not_take_each_others_functions(cache):
    program = """
import sys
import msgspec, numpy as np
from udfs.contracts.profiles import PROFILE
from udfs.features.computer import FeatureComputer
from udfs.features.declaration_file import FeatureFile, declaration_of
for value in sys.argv[1:]:
    entry = {"value": value, "unit": "x", "doc": "x"}
    declaration = declaration_of(msgspec.convert({"features": {"own": {"x": entry}}}, FeatureFile))
    events = np.zeros(2, declaration.layout.dtype)
    events["scroll"] = 7, 9
    rows = (np.array([number]) for number in (0, 2, 2, 0))
    print(FeatureComputer(declaration=declaration).compute(events, *rows, np.zeros(1, PROFILE))[0, 0])
"""

    def computed(*values: str) -> list[float]:
        command = [sys.executable, "-c", program, *values]
        environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
        printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        return [float(line) for line in printed.splitlines()]

    one, other = "max(scroll)", "count(scroll > 8)"
    assert (computed(one), computed(other)) == ([9], [1])
    assert computed(one, other) == [9, 1]


@pytest.mark.slow
def test_the_sources_are_found_in_a_wheel(tmp_path):
    with ZipFile(tmp_path / "udfs.whl", "w") as wheel:
        for path in SOURCES.rglob("*.*"):
            if "__pycache__" not in path.parts:
                wheel.write(path, path.relative_to(SOURCES.parent))
    program = (
        f"import sys; sys.path[0] = {str(tmp_path / 'udfs.whl')!r};"
        "from udfs.features import kernel_cache, declaration_file;"
        "print(kernel_cache.content_hash(), kernel_cache.is_usable(), len(declaration_file.STANDARD.names))"
    )
    printed = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert printed.stdout.split() == [kernel_cache.content_hash(), "True", "105"]
