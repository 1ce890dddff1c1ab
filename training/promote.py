"""Show and change which models serve: `python -m training.promote show --registry models/registry`.

Exit codes: 0, done; 2, refused: nothing has changed, and one line on standard error says why.
"""

import getpass
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pandas as pd

from training.experiments.comparison import Report
from training.experiments.sessions import read_sessions, read_topic_sessions
from training.retraining.settings import RETRAINING_FILE, load_retraining
from training.rollout import bandit
from training.rollout.admission import admit
from training.rollout.admission_settings import DEFAULTS, Admission, load_admission
from training.rollout.commands import (
    AddShadow,
    Apply,
    Change,
    First,
    MakeChampion,
    Ramp,
    Reallocate,
    Rollback,
    Start,
    Stop,
)
from training.rollout.display import bundle_lines, ledger_lines, serving_lines
from training.rollout.ledger import upload_bundle
from training.rollout.ramp_step import sessions_since, step_report
from training.rollout.service import OVERRIDABLE, FindReport, RolloutService, Snapshot
from training.rollout.step_guardrails import check_names, data_lines, guarded_kpis
from training.rollout.transitions import ChangeError
from udfs.config.command_line import EXIT_USAGE, PATH, Group, Value, run
from udfs.kafka.reading import read_topic
from udfs.measurement.kpis import KPIS_FILE, load_kpis
from udfs.models.bundle import directory_files
from udfs.rollout.experiments import read_entries
from udfs.rollout.plan import load_steps
from udfs.rollout.registry import Entry, Registry


@dataclass(frozen=True)
class Request:
    """The options that all changes have in common."""

    registry: str
    why: str
    by: str | None
    force: bool = False
    sessions: str | None = None
    conf: Path = RETRAINING_FILE


def _execute(change: Change, request: Request, snapshot: Snapshot | None = None) -> Entry:
    """Execute a change, print the resulting rollout and return the ledger's entry.

    The change is made to a snapshot, by default to the current rollout.
    """
    admission = _admission(request.conf)
    registry = Registry(request.registry, admission.trusted_keys)
    try:
        entry, overridden = RolloutService(registry, admission).execute(
            change,
            by=request.by or _whoami(),
            why=request.why,
            force=request.force,
            report=_find_report(registry, request),
            options=_ledger_options(request),
            snapshot=snapshot,
        )
    except OVERRIDABLE as error:
        raise type(error)(f"{error}; --force overrides this") from None
    _print(f"forced: {line}" for line in overridden)
    print(f"ledger entry {entry.number} is now active")
    _print(serving_lines(registry, entry))
    return entry


def _admission(conf: Path) -> Admission:
    """The section `admission` of the settings; the defaults if there is no file at the default place."""
    return DEFAULTS if conf == RETRAINING_FILE and not conf.exists() else load_admission(conf)


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def _find_report(registry: Registry, request: Request) -> FindReport | None:
    """Reports from the sessions that --sessions names; None without that option."""
    if request.sessions is None:
        return None

    def find(version: str) -> Report:
        sessions = _read_sessions(request.sessions, request.conf, sessions_since(registry, version))
        return step_report(registry, version, sessions, load_kpis(request.conf.with_name(KPIS_FILE)))

    return find


def _read_sessions(source: str, conf: Path, since: datetime | None = None) -> pd.DataFrame:
    """Sessions of a file or directory, or those of the topic since a time where the source is `topic`."""
    if source != "topic":
        return read_sessions(Path(source))
    settings = load_retraining(conf)
    return read_topic_sessions(settings.kafka, settings.topics.sessions, since, read_topic)


def _kpis_file(file: Path, conf: Path) -> Path:
    """The file of KPIs beside a rollout file, or else beside the settings. Raises ChangeError."""
    candidates = [path.with_name(KPIS_FILE) for path in (file, conf)]
    for path in candidates:
        if path.exists():
            return path
    raise ChangeError(
        f"{file}: the steps have guardrails, and {' and '.join(map(str, candidates))} do not exist: name the file of "
        "KPIs with --kpis FILE"
    )


def _ledger_options(request: Request) -> list[str]:
    """The options that the ledger records after the change itself."""
    recorded = []
    if request.sessions is not None:
        recorded += ["--sessions", request.sessions]
        if request.conf != RETRAINING_FILE:
            recorded += ["--conf", str(request.conf)]
    if request.force:
        recorded.append("--force")
    return recorded


def _whoami() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a container whose user has no name
        raise ChangeError("cannot determine the user name; pass --by NAME") from None


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise ValueError(f"expected a number from 0 to 1, got {text}")
    return share


def _reason(text: str) -> str:
    if not text.strip():
        raise ValueError("expected a reason, got an empty text")
    return text


SHARE = Value("share", _share)

registry_option = click.option(
    "--registry",
    required=True,
    metavar="URI",
    help="Registry: a directory or an fsspec URL, such as s3://bucket/registry.",
)


conf_option = click.option(
    "--conf",
    type=PATH,
    metavar="FILE",
    default=RETRAINING_FILE,
    help="Retraining settings: trusted keys and the bounds of a trial; with --sessions also brokers and topic, and "
    f"{KPIS_FILE} in the same directory.",
)


def change_options(function: Callable) -> Callable:
    """The options of every change; the ledger records them separately from the command."""
    for option in (
        click.option("--by", metavar="NAME", help="Who makes the change; by default user@host."),
        click.option(
            "--why", required=True, type=Value("text", _reason), metavar="TEXT", help="Reason, for the ledger."
        ),
        conf_option,
        registry_option,
    ):
        function = option(function)
    return function


def force_option(overridden: str) -> Callable[[Callable], Callable]:
    return click.option("--force", is_flag=True, help=f"Override {overridden}. The ledger records it.")


def version_argument(help: str) -> Callable[[Callable], Callable]:
    return click.argument("version", help=help)


@click.command("promote", cls=Group, errors={ValueError: EXIT_USAGE, OSError: EXIT_USAGE})
def command() -> None:
    """Show and change which models serve.

    A registry holds the bundles that may serve, and a ledger of all changes. Running jobs follow the newest entry.

    \b
    Examples:
      intent promote show --registry models/registry
      intent promote stage models/second --registry models/registry
      intent promote rollback --registry models/registry --why "conversion fell"
    """


@command.command("list")
@conf_option
@registry_option
def list_bundles(registry: str, conf: Path) -> None:
    """List the staged bundles and the ledger.

    \b
    Examples:
      intent promote list --registry models/registry
      intent promote list --registry s3://bucket/registry
    """
    opened = Registry(registry, _admission(conf).trusted_keys)
    _print([*bundle_lines(opened), "", *ledger_lines(opened)])


@command.command("show")
@conf_option
@registry_option
def show(registry: str, conf: Path) -> None:
    """Show which models serve now, with their metrics.

    \b
    Examples:
      intent promote show --registry models/registry
      intent promote show --registry s3://bucket/registry
    """
    opened = Registry(registry, _admission(conf).trusted_keys)
    _print(serving_lines(opened, opened.newest()))


@command.command("stage")
@click.argument("directory", type=PATH, metavar="DIR", help="Directory of the bundle.")
@conf_option
@registry_option
def stage(directory: Path, registry: str, conf: Path) -> None:
    """Check a bundle and copy it into the registry.

    \b
    Examples:
      intent promote stage models/second --registry models/registry
      intent promote stage models/second --registry s3://bucket/registry
    """
    admission = _admission(conf)
    files = directory_files(directory, admission.trusted_keys)
    version = admit(files, str(directory), None, admission).version
    is_new = upload_bundle(Registry(registry, admission.trusted_keys), files)
    print(f"{version}: {'staged' if is_new else 'already staged'}")


@command.command("shadow")
@version_argument("Version of a staged model.")
@change_options
def shadow(version: str, **request: Any) -> None:
    """Let a model score every click without acting on its scores.

    \b
    Examples:
      intent promote shadow v2 --registry models/registry --why "retrained on May"
    """
    _execute(AddShadow(version), Request(**request))


@command.command("start", exactly_one=("at_most", "champion"), at_most_one=("share", "champion"))
@version_argument("Version of a staged model.")
@click.option(
    "--share", type=SHARE, metavar="SHARE", help="First traffic share; by default the first step of the plan."
)
@click.option("--at-most", type=SHARE, metavar="SHARE", help="Maximum traffic share, which no ramp exceeds.")
@click.option("--champion", is_flag=True, help="Make the model the first champion of a new registry.")
@force_option("the comparison of its holdout metrics with the champion's")
@change_options
def start(version: str, share: float | None, at_most: float | None, champion: bool, **request: Any) -> None:
    """Let a model act for a share of the users, as a challenger.

    \b
    Examples:
      intent promote start v1 --champion --registry models/registry --why "the first model"
      intent promote start v2 --at-most 0.5 --registry models/registry --why "shadow scores look right"
    """
    change = First(version) if champion else Start(version, at_most, share)
    entry = _execute(change, Request(**request))
    others = [part.version for part in entry.rollout.challengers if part.version != version]
    if others and entry.rollout.bandit is None:
        print(
            f"users are drawn afresh only when no other challenger runs: {version}, beside {' and '.join(others)}, may "
            "get users who had an earlier challenger"
        )


@command.command("ramp", at_most_one=("share", "to_champion"))
@version_argument("Version of a challenger.")
@click.option(
    "--sessions",
    metavar="PATH|topic",
    help="Sessions that show whether the guardrails hold: a file or directory, or `topic` to read the topic.",
)
@click.option("--share", type=SHARE, metavar="SHARE", help="Traffic share; by default the next step of the plan.")
@click.option("--to-champion", is_flag=True, help="Make the challenger the champion, which acts for all users.")
@force_option("the guardrails of the challenger's step")
@change_options
def ramp(version: str, share: float | None, to_champion: bool, **request: Any) -> None:
    """Give a challenger the next traffic share of the plan.

    \b
    Examples:
      intent promote ramp v2 --registry models/registry --why "a day at 1 %" --sessions topic
      intent promote ramp v2 --to-champion --registry models/registry --why "guardrails hold" --sessions sessions/
    """
    change = MakeChampion(version) if to_champion else Ramp(version, share)
    _execute(change, Request(**request))


@command.command("reallocate")
@click.option(
    "--sessions",
    required=True,
    metavar="PATH|topic",
    help="Sessions to compare the arms by: a file or directory, or `topic` to read the topic.",
)
@change_options
def reallocate(**request: Any) -> None:
    """Let the bandit of the rollout give all challengers new shares.

    \b
    Examples:
      intent promote reallocate --registry models/registry --why "another day" --sessions topic
      intent promote reallocate --registry models/registry --why "another day" --sessions sessions/
    """
    made = Request(**request)
    registry = Registry(made.registry)
    snapshot, entries = RolloutService(registry).snapshot(), read_entries(registry)
    bandit.refuse_early(entries, datetime.now(UTC))
    sessions = _read_sessions(made.sessions, made.conf, bandit.sessions_since(entries))
    found = bandit.look(entries, sessions, load_kpis(made.conf.with_name(KPIS_FILE)))
    _print([*bandit.lines(found), ""])
    _execute(Reallocate(found.shares, bandit.salt(snapshot.number)), made, snapshot)


@command.command("stop")
@version_argument("Version of a challenger or shadow.")
@change_options
def stop(version: str, **request: Any) -> None:
    """Remove a challenger or shadow.

    \b
    Examples:
      intent promote stop v2 --registry models/registry --why "its endpoint is down"
    """
    _execute(Stop(version), Request(**request))


@command.command("rollback")
@click.option(
    "--to", type=int, metavar="ENTRY", help="Ledger entry to return to; by default the one before the current one."
)
@change_options
def rollback(to: int | None, **request: Any) -> None:
    """Return to the models of an earlier ledger entry.

    \b
    Examples:
      intent promote rollback --registry models/registry --why "conversion fell"
      intent promote rollback --to 7 --registry models/registry --why "the last good week"
    """
    _execute(Rollback(to), Request(**request))


@command.command("apply")
@click.argument("file", type=PATH, metavar="FILE", help="Rollout file, such as conf/rollout.yaml.")
@click.option(
    "--sessions",
    metavar="PATH|topic",
    help="Sessions that show whether the KPIs of the guardrails have data: a file or directory, or `topic` to read "
    "the topic.",
)
@click.option(
    "--kpis",
    type=PATH,
    metavar="FILE",
    help=f"File that defines the KPIs; by default {KPIS_FILE} in the directory of the rollout file, or in that of "
    "--conf.",
)
@force_option("the comparison of holdout metrics with the champion's")
@change_options
def apply(file: Path, sessions: str | None, kpis: Path | None, conf: Path, **request: Any) -> None:
    """Change the plan, rule, control group or models from a file.

    Keys of the file replace those of the current rollout; all others stay.

    \b
    Examples:
      intent promote apply conf/rollout.yaml --registry models/registry --why "5 % control group"
      intent promote apply conf/rollout.yaml --registry models/registry --why "a ramp plan" --sessions topic
    """
    steps = load_steps(file)
    names = guarded_kpis(steps)
    if names:
        kpis_file = kpis or _kpis_file(file, conf)
        defined = load_kpis(kpis_file)
        check_names(file, steps, defined, kpis_file)
        if sessions is not None:
            _print(data_lines(_read_sessions(sessions, conf), defined, names))
    _execute(Apply(file), Request(conf=conf, **request))
    if names and sessions is None:
        print("to check whether the KPIs of the guardrails have data, repeat this with --sessions PATH|topic")


def main(arguments: Sequence[str] | None = None) -> int:
    """Show or change which models serve; return the exit code."""
    return run(command, "python -m training.promote", arguments)


if __name__ == "__main__":
    sys.exit(main())
