"""Records of retraining: one file per run, `retraining/<run>.json` in the registry, written whole after each step."""

from datetime import datetime
from typing import Literal

import msgspec

from training.rollout.atomic_files import replace_file
from udfs.rollout.registry import Registry, RegistryError

DIRECTORY = "retraining"
State = Literal["preparing", "training", "evaluating", "passed", "failed", "refused", "error"]


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a run, frozen when it begins; epoch milliseconds, both ends included.

    Events from `start` to `matured` are examples: at `end`, when the newest click arrived, their horizon had passed.
    Those from `newest` on are held out; clicks since `context` are history of later events.
    """

    context: int
    start: int
    newest: int
    matured: int
    end: int


class Gate(msgspec.Struct, frozen=True):
    """The result of a gate: its rule, the measured value, and whether the candidate passed."""

    name: str
    rule: str
    value: str
    passed: bool


class RampRecord(msgspec.Struct, frozen=True):
    """A decision on a challenger, with time and reason; the ledger has the entry of the change."""

    at: datetime
    act: Literal["start", "ramp", "champion", "stop", "wait"]
    why: str
    ledger_entry: int | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a run. Without `finished`, the next start resumes it, also after an error."""

    run: str
    started: datetime
    trigger: str
    state: State
    window: Window
    champion: str
    settings: str  # their hash: with other settings, the results so far are useless
    gates: tuple[Gate, ...] = ()
    version: str | None = None
    ledger_entry: int | None = None
    message: str = ""
    finished: datetime | None = None
    decisions: tuple[RampRecord, ...] = ()


def run_name(started: datetime) -> str:
    """The name of a run; names sort by time."""
    return f"{started:%Y%m%dT%H%M%S%f}Z"


def write_run(registry: Registry, run: Run) -> None:
    content = msgspec.json.format(msgspec.json.encode(run)) + b"\n"
    replace_file(registry, (DIRECTORY, f"{run.run}.json"), content)


def read_runs(registry: Registry, limit: int | None = None) -> list[Run]:
    """Read all runs or the newest `limit`, the newest last. Raises RegistryError for a file that is not a record."""
    names = [name for name in registry.names(DIRECTORY) if name.endswith(".json")]
    return [_read(registry, name) for name in (names[-limit:] if limit else names)]


def passed_runs(registry: Registry) -> dict[str, Run]:
    """The runs whose model passed its gates, and so entered shadow, by version."""
    return {run.version: run for run in read_runs(registry) if run.state == "passed" and run.version is not None}


def newest_run(registry: Registry) -> Run | None:
    runs = read_runs(registry, 1)
    return runs[0] if runs else None


def _read(registry: Registry, name: str) -> Run:
    try:
        return msgspec.json.decode(registry.read(DIRECTORY, name), type=Run)
    except (FileNotFoundError, msgspec.DecodeError) as error:
        raise RegistryError(f"{registry.uri}/{DIRECTORY}/{name}: not the record of a run: {error}") from None
