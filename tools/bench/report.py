"""The benchmark's report: the last figures of each part, with date and commit."""

import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec


class ReportError(ValueError):
    """A report that can't be read; the message is one line."""


class Measured(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The figures of one run of a part, with its date, commit and cores."""

    date: datetime
    commit: str
    cores: int
    figures: dict


Report = dict[str, Measured]


def read_report(path: Path) -> Report:
    """The parts of a report by name; none when there is no file. Raises ReportError."""
    if not path.exists():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except msgspec.DecodeError as error:
        raise ReportError(f"{path}: cannot be read by this release: {error}") from None


def write_report(path: Path, report: Mapping[str, Measured]) -> None:
    """Write a report atomically: a reader sees the previous one until it is complete."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
    beside.replace(path)


def now() -> datetime:
    """The current time in UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def commit_of(directory: Path) -> str:
    """The checked-out commit, with a plus if files differ from it; `unknown` without a repository."""
    commit = _git(directory, "rev-parse", "--short", "HEAD")
    if commit is None:
        return "unknown"
    return f"{commit}+" if _git(directory, "status", "--porcelain") else commit


def _git(directory: Path, *arguments: str) -> str | None:
    try:
        ran = subprocess.run(["git", *arguments], cwd=directory, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return ran.stdout.strip()
