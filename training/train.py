"""Train a model on clicks and write a bundle: `python -m training.train --simulate --out models/first`.

Exit codes: 0, the bundle is written; 1, the bundle is written, but MLflow could not record it; 2, refused, no bundle.
"""

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import click
import numpy as np

from training.bundles.trainer import TrainedModel, train_model
from training.bundles.writer import refuse_existing, write_bundle
from training.data.downsampling import share_that_fits
from training.data.examples import Examples, load_examples
from training.data.feature_log import FeatureLog
from training.data.preparation import prepare, refuse_without_positives
from training.data.progress_bar import elapsed_time, progress_bar
from training.data.summary import RELIABLE_USERS, Summary, overview, warnings
from training.evaluation.champion import compare_with_champion
from training.modeling.settings import Training, TrainingError, for_logged, load_training
from training.reporting.facts import Background
from training.reporting.mlflow_tracking import TrackingError, check_tracking, is_tracked, track
from training.reporting.recommendation import read_recommendation
from training.reporting.recommendation_text import recommendation_text
from training.reporting.report import METRICS_FILE, REPORT_FILE, with_report
from training.reporting.serving_cost import costs, saving
from training.simulation.clickstream import Simulation, simulate
from training.simulation.examples import simulated_examples
from udfs.config.command_line import (
    EXIT_FAILED,
    EXIT_OK,
    EXIT_USAGE,
    PATH,
    Command,
    print_error,
    run,
    set_option,
)
from udfs.features.declaration import Declaration, merged
from udfs.mapping.definition import load_mapping
from udfs.measurement.labels import CONVERTED, LABELS_FILE, Label, find_label
from udfs.models.bundle import GRU_FILE, Bundle, Manifest, check_version, load_bundle

DEFAULT_CONF = Path("conf", "training.yaml")
SIMULATION = Simulation()


@dataclass(frozen=True)
class Options:
    """The options of the command."""

    simulate: bool
    clicks: Path | None
    profiles: Path | None
    mapping: Path | None
    feature_log: Path | None
    logged_by: Path | None
    champion: Path | None
    label: str
    out: Path
    version: str | None
    conf: Path | None
    overrides: tuple[str, ...]
    users: int
    hours: float
    data_seed: int


def _train(options: Options) -> tuple[TrainedModel, Training]:
    """Train and write the bundle. If training fails, nothing is written."""
    refuse_existing(options.out)
    for name in ("profiles", "mapping"):
        if options.simulate and getattr(options, name) is not None:
            raise TrainingError(f"--{name} can't be combined with --simulate: a simulated shop needs none")
    if options.version is not None:  # by default it is chosen later, and always fits
        check_version(options.version)
    check_tracking()
    training, log = _feature_log(options, load_training(options.conf, options.overrides))
    label = find_label(options.label, (options.conf or DEFAULT_CONF).with_name(LABELS_FILE))
    champion = _champion(options, training, label)
    workspace = Path(mkdtemp(prefix="training-", dir=_existing_parent(options.out)))
    try:
        data = _read_data(options, training, log, label, champion, workspace / "examples")
        with elapsed_time("training"):
            trained = train_model(data.examples, training, label, data.propensity, options.version, print)
            evaluation = trained.evaluation
            compared = champion and compare_with_champion(
                evaluation.holdout, evaluation.probability, training.declared, champion, RELIABLE_USERS
            )
            trained = with_report(trained, Background(data.described, data.warnings, compared))
        write_bundle(options.out, trained.manifest, trained.files)
    finally:
        shutil.rmtree(workspace)
    return trained, training


def summary(manifest: Manifest) -> str:
    """The results of a training, in a few lines."""
    metrics = manifest.metrics
    best, rounds = metrics.get("best_possible_test_auc"), metrics["rounds"]
    unit = "rounds" if GRU_FILE in manifest.files else "trees"
    is_rough = metrics["test_positive_users"] < RELIABLE_USERS
    return "\n".join(
        [
            f"model {manifest.version}: {f'{rounds:.0f} {unit}, ' if rounds else ''}{len(manifest.features)} features",
            f"test AUC {metrics['test_roc_auc']:.4f} ({metrics['test_roc_auc_low']:.4f} to "
            f"{metrics['test_roc_auc_high']:.4f})" + (f", best possible {best:.4f}" if best is not None else ""),
            *_on_new_users(metrics),
            f"test events {metrics['test_events']:.0f}, {metrics['test_positive_rate']:.2%} positive, "
            f"of {metrics['test_positive_users']:.0f} users" + (": too few for a reliable AUC" if is_rough else ""),
        ]
    )


def _on_new_users(metrics: Mapping[str, float]) -> list[str]:
    """The AUC in repeated cross-validation, and how it differs from those of other models; no line if not measured."""
    if "repeated_roc_auc_low" not in metrics:
        return []

    def figure(name: str, form: str) -> str:
        return f"{metrics[name]:{form}} ({metrics[f'{name}_low']:{form}} to {metrics[f'{name}_high']:{form}})"

    start = "repeated_roc_auc_minus_"
    rivals = [name[len(start) : -len("_low")] for name in metrics if name.startswith(start) and name.endswith("_low")]
    compared = [f"; minus that of {rival} {figure(start + rival, '+.4f')}" for rival in rivals]
    return [f"AUC on new users {figure('repeated_roc_auc', '.4f')}{''.join(compared)}"]


def _existing_parent(path: Path) -> Path:
    """The directory for the workspace: on the same disk as the bundle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent


def _feature_log(options: Options, training: Training) -> tuple[Training, FeatureLog | None]:
    """The settings, limited to the features of the feature log if there is one, and the log."""
    if options.feature_log is None and options.logged_by is None:
        return training, None
    if options.feature_log is None or options.logged_by is None:
        raise TrainingError(
            "--feature-log and --logged-by require each other: the bundle names the features in the log"
        )
    if options.simulate or options.profiles:
        raise TrainingError(
            "--feature-log can only be combined with --clicks: the log includes the features of profiles"
        )
    bundle = load_bundle(options.logged_by, None)
    manifest = bundle.manifest
    log = FeatureLog(options.feature_log, manifest.feature_schema_hash, manifest.features)
    return for_logged(training, bundle.declaration, manifest.features, manifest.history_length), log


def _champion(options: Options, training: Training, label: Label) -> Bundle | None:
    """The bundle to compare with. Raises TrainingError when it does not fit the training, and BundleError."""
    if options.champion is None:
        return None
    if options.feature_log is not None:
        raise TrainingError("--champion can't be combined with --feature-log, which may lack the champion's features")
    champion = load_bundle(options.champion, training.history_length)
    if not champion.manifest.label.is_same_as(label):
        raise TrainingError(
            f'--champion {options.champion}: it predicts "{champion.manifest.label}", and --label is "{label}": no '
            "metric compares the two"
        )
    if lacking := training.declared.layout.without(champion.declaration.layout):
        raise TrainingError(f"--champion {options.champion}: it needs {lacking[0]}: keep it in the declaration")
    return champion


@dataclass(frozen=True)
class _Data:
    """The examples, their true propensity if it is known, and lines about where they come from."""

    examples: Examples
    propensity: np.ndarray | None
    described: tuple[str, ...]
    warnings: tuple[str, ...] | None


def _read_data(
    options: Options, training: Training, log: FeatureLog | None, label: Label, champion: Bundle | None, directory: Path
) -> _Data:
    """Make examples with the features of the settings, and those of the champion if there is one."""
    declaration = training.declared if champion is None else merged(training.declared, [champion.declaration])[0]
    if options.simulate:
        with elapsed_time("simulating"):
            stream = simulate(Simulation(options.users, options.hours, options.data_seed))
            examples = simulated_examples(stream, label, training.history_length, declaration)
        line = f"{len(stream)} clicks of {options.users} users"
        print(line)
        propensity = stream.propensity[examples.offset] if label.is_same_as(CONVERTED) else None
        return _Data(examples, propensity, (f"A simulated shop: {line}",), None)
    directories, counts = _prepare(options, training, declaration, log, label, directory)
    refuse_without_positives(options.clicks, label, counts)
    print(overview(counts))
    sources = options.clicks, options.profiles, options.feature_log
    for line in warnings(counts, *sources):
        print(f"train: {line}", file=sys.stderr)
    described = overview(counts).splitlines()
    share = share_that_fits(counts.examples, counts.positives, training.negative_share, training.max_rows)
    if share < training.negative_share:
        described.append(f"more than {training.max_rows} events: training with {share:.1%} of the negatives")
        print(described[-1])
    # A bundle goes to other machines, where the directories of this one say nothing.
    problems = warnings(counts, *(path and Path(path.name) for path in sources))
    return _Data(load_examples(directories, share, training.seed), None, tuple(described), tuple(problems))


def _prepare(
    options: Options,
    training: Training,
    declaration: Declaration,
    log: FeatureLog | None,
    label: Label,
    directory: Path,
) -> tuple[list[Path], Summary]:
    mappings = load_mapping(options.mapping) if options.mapping else None
    preparation = training.preparation(
        label,
        declaration,
        log=log,
    )
    with progress_bar() as progress:
        return prepare(options.clicks, directory, preparation, options.profiles, mappings, progress)


@click.command(
    "train",
    cls=Command,
    exactly_one=("clicks", "simulate"),
    errors=dict.fromkeys((ValueError, OSError, TrackingError), EXIT_USAGE),
)
@click.option("--simulate", is_flag=True, help="Train on a simulated shop.")
@click.option(
    "--clicks",
    type=PATH,
    metavar="PATH",
    help="Train on clicks: an archive, a file or a directory of files (CSV, JSON Lines, JSON, Parquet, Avro).",
)
@click.option(
    "--profiles",
    type=PATH,
    metavar="PATH",
    help="Profiles of the users: an archive, or .jsonl files in which `updated_at` (ms) is the time of each profile.",
)
@click.option(
    "--mapping",
    type=PATH,
    metavar="FILE",
    help="YAML file that maps columns to fields; `intent map` proposes one, and conf/mappings has ready ones.",
)
@click.option(
    "--feature-log",
    type=PATH,
    metavar="DIR",
    help="Archived feature_log of the job: train on the features with which events were scored. Requires --logged-by.",
)
@click.option(
    "--logged-by", type=PATH, metavar="BUNDLE", help="Bundle that wrote the feature log, which names the features."
)
@click.option(
    "--champion", type=PATH, metavar="BUNDLE", help="Bundle that serves today: the report has both models side by side."
)
@click.option(
    "--label",
    default="purchase within 30 min",
    metavar="LABEL",
    help="Label to predict: a name from the labels.yaml beside --conf, or `EVENT within DURATION`.",
)
@click.option(
    "--out", type=PATH, required=True, metavar="DIR", help="Directory of the new bundle, which must not exist."
)
@click.option("--version", metavar="NAME", help="Version of the model; by default the end of its data and a hash.")
@click.option(
    "--conf",
    type=PATH,
    metavar="FILE",
    help="Training settings, for example conf/training.yaml; by default the built-in ones.",
)
@set_option("folds=3")
@click.option("--users", type=int, default=SIMULATION.users, help="Number of users to simulate.")
@click.option("--hours", type=float, default=SIMULATION.hours, help="Hours to simulate.")
@click.option("--data-seed", type=int, default=SIMULATION.seed, help="Seed of the simulation.")
def command(**given: Any) -> int:
    """Train a model on clicks and write it as a bundle.

    The bundle holds the model, its ONNX export, reference data, a report and a model card.

    \b
    Examples:
      intent train --simulate --out models/first
      intent train --clicks events.csv --mapping conf/mappings/example.yaml --out models/first
      intent train --clicks archive --label "begin_checkout within 1 h" --conf conf/training.yaml --out models/checkout
    """
    options = Options(**given)
    trained, training = _train(options)
    print(summary(trained.manifest))
    for line in (saving(trained), costs(trained)):
        if line:
            print(line)
    print(recommendation_text(read_recommendation(options.out / METRICS_FILE)))
    print(f"wrote {options.out}; read {options.out / REPORT_FILE}")
    try:
        if is_tracked():
            print(track(options.out, trained, training))
    except TrackingError as error:
        print_error("train", f"{error}; the bundle {options.out} is complete")
        return EXIT_FAILED
    return EXIT_OK


def main(arguments: Sequence[str] | None = None) -> int:
    """Train a model and write its bundle; return the exit code."""
    return run(command, "python -m training.train", arguments)


if __name__ == "__main__":
    sys.exit(main())
