"""A release: everything that a cluster needs from this project, in one directory and one archive.

python -m tools.release                  # `make release`: writes dist/release
cd purchase-intent-0.1.0 && sha256sum --check --strict SHA256SUMS
"""

import hashlib
import shutil
import sys
import tarfile
from pathlib import Path

from tools.paths import JARS, PROJECT
from tools.sbom import sbom
from tools.stack.flink_client import JobError, newest_wheel
from tools.stack.processes import ProcessError

CHECKSUMS = "SHA256SUMS"
SBOM = "sbom.cdx.json"
#: Files and directories that are copied unchanged, beside wheel and JARs.
FILES = ("requirements.txt", "conf", "Dockerfile", "compose.yaml")
README = """\
wheel/             the jobs: flink run -pym jobs.score_clicks -pyfs wheel/*.whl --conf FILE
jars/              belong into the cluster's lib/, with flink-python-*.jar of Flink's own opt/
requirements.txt   what TaskManagers and client need in their Python 3.11:
                   pip install --no-deps --require-hashes -r requirements.txt
conf/              settings to start from, rules for Prometheus, a dashboard for Grafana, examples for Kubernetes
Dockerfile         an image of all this: docker build --tag purchase-intent:0.1.0 .
compose.yaml       that image with broker, Prometheus and Grafana, for trying out
sbom.cdx.json      all Python packages and JARs with versions, hashes and licences, in CycloneDX
SHA256SUMS         sha256sum --check --strict SHA256SUMS
"""


def build_release(wheel: Path, jars: Path, directory: Path) -> Path:
    """Build a release under `directory`, and beside it the same as .tar.gz; returns the archive.

    Raises ProcessError when there are no JARs.
    """
    if not any(jars.glob("*.jar")):
        raise ProcessError(f"{jars}: no JARs there; run `make jars`")
    product, version = wheel.name.replace("_", "-").rsplit("-", 4)[:2]
    name = f"{product}-{version}"
    root = directory / name
    shutil.rmtree(root, ignore_errors=True)
    (root / "wheel").mkdir(parents=True)
    shutil.copy(wheel, root / "wheel")
    shutil.copytree(jars, root / "jars")
    for file in FILES:
        copy = shutil.copytree if (PROJECT / file).is_dir() else shutil.copy
        copy(PROJECT / file, root / file)
    (root / "README").write_text(README)
    requirements, pom = ((PROJECT / file).read_text() for file in ("requirements.txt", "pom.xml"))
    (root / SBOM).write_text(sbom(product, version, requirements, pom, jars))
    (root / CHECKSUMS).write_text(checksums(root))
    archive = directory / f"{name}.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as packed:  # JARs are compressed already
        packed.add(root, name, filter=_without_owner)
    return archive


def checksums(root: Path) -> str:
    """Lines for sha256sum, of all files under `root`."""
    files = sorted(file for file in root.rglob("*") if file.is_file())
    return "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(root)}\n" for file in files)


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Remove the packing account from an archive member."""
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def main() -> int:
    try:
        archive = build_release(newest_wheel(), JARS / "job", PROJECT / "dist" / "release")
    except (JobError, ProcessError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 2
    print(f"wrote {archive.relative_to(PROJECT)} ({archive.stat().st_size >> 20} MiB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
