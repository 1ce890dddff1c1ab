"""Change and show who serves: `python -m training.promote show --registry models/registry`.

Exit code 0: done. 2: refused, nothing has changed; one line on standard error says why.
"""

import argparse
import getpass
import socket
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from training.experiments.sessions import read_sessions, read_topic_sessions
from training.retraining.settings import RETRAINING_FILE, load_retraining
from training.rollout.admission import check_bundle
from training.rollout.commands import AddShadow, Apply, Change, First, MakeChampion, Ramp, Rollback, Start, Stop
from training.rollout.display import bundle_lines, ledger_lines, serving_lines
from training.rollout.ledger import upload_bundle
from training.rollout.ramp_step import step_report
from training.rollout.service import OVERRIDABLE, Evidence, FindEvidence, RolloutService
from training.rollout.transitions import ChangeError
from udfs.kafka.reading import read_topic
from udfs.measurement.kpis import KPIS_FILE, load_kpis
from udfs.models.bundle import load_bundle
from udfs.rollout.plan import Rollout
from udfs.rollout.registry import Registry


def main(arguments: list[str] | None = None) -> int:
    """Change who serves, through the registry's ledger, or show it."""
    options = _parser().parse_args(arguments)
    try:
        for line in options.run(Registry(options.registry), options):
            print(line)
    except (ValueError, OSError) as error:
        print(f"promote: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _list(registry: Registry, options: argparse.Namespace) -> list[str]:
    return [*bundle_lines(registry), "", *ledger_lines(registry)]


def _show(registry: Registry, options: argparse.Namespace) -> list[str]:
    return serving_lines(registry, registry.newest())


def _stage(registry: Registry, options: argparse.Namespace) -> list[str]:
    bundle = load_bundle(options.directory, None)
    check_bundle(bundle)
    is_new = upload_bundle(registry, options.directory, bundle)
    return [f"{bundle.manifest.version}: {'staged' if is_new else 'is staged already'}"]


def _change(registry: Registry, options: argparse.Namespace) -> list[str]:
    """Execute the change that the options ask for."""
    try:
        entry, overridden = RolloutService(registry).execute(
            options.change(options),
            by=options.by or _whoami(),
            why=options.why,
            force=options.force,
            evidence=_evidence(options),
            options=_ledger_options(options),
        )
    except OVERRIDABLE as error:
        raise type(error)(f"{error}; --force overrides this") from None
    forced = [f"forced: {line}" for line in overridden]
    return [*forced, f"entry {entry.number} serves", *serving_lines(registry, entry)]


def _start(options: argparse.Namespace) -> Change:
    if options.champion:
        return First(options.version)
    return Start(options.version, options.at_most, options.share)


def _ramp(options: argparse.Namespace) -> Change:
    return MakeChampion(options.version) if options.to_champion else Ramp(options.version, options.share)


def _evidence(options: argparse.Namespace) -> FindEvidence | None:
    """What tells whether guardrails hold: the sessions that --sessions names; None without them."""
    if options.sessions is None:
        return None

    def find(rollout: Rollout, version: str, since: datetime) -> Evidence:
        if options.sessions == "topic":
            settings = load_retraining(options.conf)
            since_ms = int(since.timestamp() * 1000)
            sessions = read_topic_sessions(settings.kafka, settings.topics.sessions, since_ms, read_topic)
        else:
            sessions = read_sessions(Path(options.sessions))
        kpis = load_kpis(options.conf.with_name(KPIS_FILE))
        return Evidence(step_report(rollout, version, since, sessions, kpis), kpis)

    return find


def _ledger_options(options: argparse.Namespace) -> list[str]:
    """What the ledger's command has beside the change itself."""
    recorded = []
    if options.sessions is not None:
        recorded += ["--sessions", options.sessions]
        if options.conf != RETRAINING_FILE:
            recorded += ["--conf", str(options.conf)]
    if options.force:
        recorded.append("--force")
    return recorded


def _whoami() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a container whose user has no name
        raise ChangeError("who makes the change? This system has no name for you: give --by") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.promote", description=main.__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_readers(commands)
    _add_changes(commands)
    return parser


def _add_readers(commands: argparse._SubParsersAction) -> None:
    """The commands that leave alone who serves."""

    def add(name: str, run: Callable, what: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=what, description=what, parents=[_reading()], allow_abbrev=False)
        command.set_defaults(run=run)
        return command

    add("list", _list, "the staged bundles, and the ledger")
    add("show", _show, "what serves now, and what is known of it")
    add("stage", _stage, "check a bundle and copy it into the registry").add_argument(
        "directory", type=Path, metavar="DIR"
    )


def _add_changes(commands: argparse._SubParsersAction) -> None:
    """The commands that change who serves, each with a function from its options to the Change."""

    def add(
        name: str, change: Callable[[argparse.Namespace], Change], what: str, although: str | None = None
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=what, description=what, parents=[_common()], allow_abbrev=False)
        command.set_defaults(run=_change, change=change, force=False, sessions=None)
        if although is not None:
            command.add_argument("--force", action="store_true", help=f"although {although}")
        return command

    unproven = "the holdout does not show it to be as good as the champion"
    add("shadow", lambda options: AddShadow(options.version), "let a model score and not act").add_argument("version")
    command = add("start", _start, "let a model act for a share of the users", unproven)
    command.add_argument("version")
    command.add_argument("--share", type=_share, help="at first; by default the first step of the plan")
    how = command.add_mutually_exclusive_group(required=True)
    how.add_argument("--at-most", type=_share, help="the largest share that it may ever ramp to")
    how.add_argument("--champion", action="store_true", help="as the first model of a new registry")
    command = add("ramp", _ramp, "give a challenger the next share of the plan", "guardrails of its step do not hold")
    command.add_argument("version")
    command.add_argument("--sessions", metavar="PATH|topic", help="that show whether the step's guardrails hold")
    command.add_argument(
        "--conf",
        type=Path,
        default=RETRAINING_FILE,
        help=f"retraining settings, which say where the topic is; {KPIS_FILE} lies beside them (default: %(default)s)",
    )
    how = command.add_mutually_exclusive_group()
    how.add_argument("--share", type=_share, help="or this one")
    how.add_argument("--to-champion", action="store_true", help="or all users, in the champion's place")
    add("stop", lambda options: Stop(options.version), "take a challenger or shadow out").add_argument("version")
    add("rollback", lambda options: Rollback(options.to), "return to what served before").add_argument(
        "--to", type=int, metavar="ENTRY", help="or to what served by this entry"
    )
    add(
        "apply", lambda options: Apply(options.file), "lay a file such as conf/rollout.yaml over what serves", unproven
    ).add_argument("file", type=Path)


def _reading() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--registry", required=True, metavar="URI", help="a directory or an fsspec URL")
    return parser


def _common() -> argparse.ArgumentParser:
    """What each change takes; the ledger has it apart from the command."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, parents=[_reading()])
    parser.add_argument("--why", required=True, type=_reason, help="the reason, for the ledger")
    parser.add_argument("--by", help="who; by default user@host")
    return parser


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"want a number from 0 to 1, got {text}")
    return share


def _reason(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("want a reason, got nothing")
    return text


if __name__ == "__main__":
    sys.exit(main())
