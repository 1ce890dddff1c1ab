"""Change and show who serves: `python -m training.promote show --registry models/registry`.

Exit code 0: done. 2: refused, nothing has changed; one line on standard error says why.
"""

import argparse
import getpass
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from training.admission import check_bundle
from training.changes import ChangeError, add_shadow, check_sticky, first, previous, ramp, start, stop, to_champion
from training.entering import enter
from training.experiment import KPIS_FILE, read_sessions
from training.guardrails import GuardrailError, guardrails_at, refuse_unless_held
from training.kafka_source import read_topic
from training.ledger import next_entry, upload_bundle
from training.ledger_text import bundle_lines, ledger_lines, serving_lines
from training.retraining import RETRAINING_FILE, load_retraining
from training.step import held_since, step_report, topic_sessions
from udfs.kpis import load_kpis
from udfs.model import load_bundle
from udfs.registry import Entry, Registry
from udfs.rollout import Rollout, load_rollout


def main(arguments: list[str] | None = None) -> int:
    """Change who serves, through the registry's ledger, or show it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    options.arguments = arguments
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


def _shadow(registry: Registry, options: argparse.Namespace) -> list[str]:
    return _change(registry, options, lambda rollout: add_shadow(rollout, options.version))


def _start(registry: Registry, options: argparse.Namespace) -> list[str]:
    if not options.champion:
        return _change(
            registry, options, lambda rollout: start(rollout, options.version, options.share, options.at_most)
        )
    number = next_entry(registry)
    if _has_begun(registry):
        raise ChangeError(
            "start --champion: the ledger has begun; a challenger becomes champion by `ramp --to-champion`"
        )
    return _write(registry, options, number, None, first(options.version))


def _ramp(registry: Registry, options: argparse.Namespace) -> list[str]:
    number, version = next_entry(registry), options.version
    old = registry.newest().rollout
    new = to_champion(old, version) if options.to_champion else ramp(old, version, options.share)
    return _write(registry, options, number, old, new, overridden=_overridden(registry, options, old, new))


def _overridden(registry: Registry, options: argparse.Namespace, old: Rollout, new: Rollout) -> list[str]:
    """What --force overrides of the guardrails that a growing challenger leaves; GuardrailError without it."""
    shares = [{part.version: part.share for part in rollout.challengers} for rollout in (old, new)]
    was, gets = shares[0][options.version], shares[1].get(options.version, 1.0)
    guardrails = guardrails_at(old, was) if gets > was else {}
    if not guardrails:
        return []
    try:
        if options.sessions is None:
            raise GuardrailError(f"the step at {was:g} has guardrails: --sessions PATH, or topic, tells if they hold")
        since = held_since(registry, options.version)
        if options.sessions == "topic":
            sessions = topic_sessions(load_retraining(options.conf), since, read_topic)
        else:
            sessions = read_sessions(Path(options.sessions))
        kpis = load_kpis(KPIS_FILE)
        refuse_unless_held(step_report(old, options.version, since, sessions, kpis), kpis, guardrails)
    except GuardrailError as error:
        if not options.force:
            raise GuardrailError(f"{error}; --force overrides this") from None
        return [str(error)]
    return []


def _stop(registry: Registry, options: argparse.Namespace) -> list[str]:
    return _change(registry, options, lambda rollout: stop(rollout, options.version))


def _apply(registry: Registry, options: argparse.Namespace) -> list[str]:
    number = next_entry(registry)
    if not _has_begun(registry):
        return _write(registry, options, number, None, load_rollout(options.file))
    old = registry.newest().rollout
    new = load_rollout(options.file, old)
    check_sticky(old, new)
    return _write(registry, options, number, old, new)


def _rollback(registry: Registry, options: argparse.Namespace) -> list[str]:
    number = next_entry(registry)
    newest = registry.newest()
    target = previous(registry, newest) if options.to is None else registry.entry(options.to)
    if target is None:
        raise ChangeError(f"entry {options.to} is not whole: want one that `list` shows")
    return _write(registry, options, number, newest.rollout, target.rollout, target)


def _change(registry: Registry, options: argparse.Namespace, change: Callable[[Rollout], Rollout]) -> list[str]:
    number = next_entry(registry)
    old = registry.newest().rollout
    return _write(registry, options, number, old, change(old))


def _write(
    registry: Registry,
    options: argparse.Namespace,
    number: int,
    old: Rollout | None,
    new: Rollout,
    restored: Entry | None = None,
    overridden: Sequence[str] = (),
) -> list[str]:
    entry, told = enter(
        registry,
        number,
        old,
        new,
        by=options.by or _whoami(),
        command=_common().parse_known_args(options.arguments)[1],  # all but what the entry has of its own
        why=options.why,
        force=options.force,
        overridden=overridden,
        restored=restored,
    )
    return [*(f"forced: {line}" for line in told), f"entry {entry.number} serves", *serving_lines(registry, entry)]


def _has_begun(registry: Registry) -> bool:
    """Whether the ledger has a whole entry: a first one that is half-written is none."""
    return any(registry.entry(number) is not None for number in reversed(registry.numbers()))


def _whoami() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a container whose user has no name
        raise ChangeError("who makes the change? This system has no name for you: give --by") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.promote", description=main.__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable, what: str, parents: tuple = (_common(),)) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=what, description=what, parents=parents, allow_abbrev=False)
        command.set_defaults(run=run, force=False)
        return command

    def forceable(
        command: argparse.ArgumentParser, although: str = "the holdout does not show it to be as good as the champion"
    ) -> argparse.ArgumentParser:
        command.add_argument("--force", action="store_true", help=f"although {although}")
        return command

    reading = (_reading(),)
    add("list", _list, "the staged bundles, and the ledger", reading)
    add("show", _show, "what serves now, and what is known of it", reading)
    add("stage", _stage, "check a bundle and copy it into the registry", reading).add_argument(
        "directory", type=Path, metavar="DIR"
    )
    add("shadow", _shadow, "let a model score and not act").add_argument("version")
    command = forceable(add("start", _start, "let a model act for a share of the users"))
    command.add_argument("version")
    command.add_argument("--share", type=_share, help="at first; by default the first step of the plan")
    how = command.add_mutually_exclusive_group(required=True)
    how.add_argument("--at-most", type=_share, help="the largest share that it may ever ramp to")
    how.add_argument("--champion", action="store_true", help="as the first model of a new registry")
    command = forceable(
        add("ramp", _ramp, "give a challenger the next share of the plan"), "guardrails of its step do not hold"
    )
    command.add_argument("version")
    command.add_argument("--sessions", metavar="PATH|topic", help="that tell whether the step's guardrails hold")
    command.add_argument("--conf", type=Path, default=RETRAINING_FILE, help="where the topic is: conf/retraining.yaml")
    how = command.add_mutually_exclusive_group()
    how.add_argument("--share", type=_share, help="or this one")
    how.add_argument("--to-champion", action="store_true", help="or all users, in the champion's place")
    add("stop", _stop, "take a challenger or shadow out").add_argument("version")
    add("rollback", _rollback, "return to what served before").add_argument(
        "--to", type=int, metavar="ENTRY", help="or to what served by this entry"
    )
    forceable(add("apply", _apply, "lay a file such as conf/rollout.yaml over what serves")).add_argument(
        "file", type=Path
    )
    return parser


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
