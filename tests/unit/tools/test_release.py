import shutil
import subprocess
import tarfile

import pytest

from tools.release import CHECKSUMS, SBOM, build_release
from tools.stack.processes import ProcessError


@pytest.fixture
def parts(tmp_path):
    """A wheel and a directory of JARs, as far as a release is concerned."""
    wheel = tmp_path / "purchase_intent-0.1.0-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    (tmp_path / "jars").mkdir()
    return wheel, tmp_path / "jars"


def unpacked(archive, directory):
    shutil.unpack_archive(archive, directory)
    with tarfile.open(archive) as packed:
        assert {member.uname for member in packed.getmembers()} == {"root"}
    (root,) = directory.iterdir()
    return root


def differing(root) -> list[str]:
    """The files that are not what SHA256SUMS says."""
    check = ["sha256sum", "--check", "--strict", "--quiet", CHECKSUMS]
    ran = subprocess.run(check, cwd=root, capture_output=True, text=True, check=False)
    assert (ran.returncode == 0) == (not ran.stdout)
    return [line.removesuffix(": FAILED") for line in ran.stdout.splitlines()]


def test_a_release_has_wheel_jars_pins_and_settings_each_with_its_checksum(parts, tmp_path):
    wheel, jars = parts
    (jars / "batch-operators.jar").write_bytes(b"jar")
    archive = build_release(wheel, jars, tmp_path / "release")
    assert archive.name == "purchase-intent-0.1.0.tar.gz"
    root = unpacked(archive, tmp_path / "elsewhere")
    files = {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}
    assert {
        f"wheel/{wheel.name}",
        "jars/batch-operators.jar",
        "requirements.txt",
        "conf/base.yaml",
        "README",
        SBOM,
    } < files
    summed = {line.split("  ")[1] for line in (root / CHECKSUMS).read_text().splitlines()}
    assert summed == files - {CHECKSUMS}
    assert differing(root) == []
    (root / "conf" / "base.yaml").write_text("changed")
    assert differing(root) == ["conf/base.yaml"]


def test_a_release_has_nothing_of_the_one_before(parts, tmp_path):
    wheel, jars = parts
    (jars / "old.jar").write_bytes(b"jar")
    build_release(wheel, jars, tmp_path / "release")
    (jars / "old.jar").rename(jars / "new.jar")
    root = unpacked(build_release(wheel, jars, tmp_path / "release"), tmp_path / "elsewhere")
    assert [jar.name for jar in (root / "jars").iterdir()] == ["new.jar"]


def test_without_jars_there_is_no_release(parts, tmp_path):
    with pytest.raises(ProcessError, match="make jars"):
        build_release(*parts, tmp_path / "release")
