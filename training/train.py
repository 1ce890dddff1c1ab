"""Train a model on clicks and write a bundle: `python -m training.train --simulate --out models/first`."""

import argparse
import shutil
import sys
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.bundles.trainer import train_model
from training.bundles.writer import check_version, refuse_existing, write_bundle
from training.data.examples import Examples, load_examples, share_that_fits
from training.data.feature_log import FeatureLog
from training.data.mapping import load_mapping
from training.data.prepare import Preparation, prepare
from training.data.summary import Summary, overview, warnings
from training.modeling.settings import Training, TrainingError, for_logged, load_training
from training.reporting.mlflow_tracking import TrackingError, check_tracking, is_tracked, track
from training.reporting.recommendation import RELIABLE_USERS, recommend
from training.reporting.recommendation_text import recommendation_text
from training.reporting.report import REPORT_FILE, with_report
from training.reporting.serving_cost import saving
from training.simulation.clickstream import Simulation, simulate
from training.simulation.examples import simulated_examples
from udfs.measurement.labels import CONVERTED, LABELS_FILE, Label, find_label
from udfs.models.bundle import Manifest, load_bundle

DEFAULT_CONF = Path("conf", "training.yaml")


def main(arguments: list[str] | None = None) -> int:
    """Train a model of what users do next, and write it as a bundle: model, export, references, report."""
    options = _parser().parse_args(arguments)
    workspace = None
    try:
        refuse_existing(options.out)
        check_version(options.version)
        check_tracking()
        training, log = _feature_log(options, load_training(options.conf, options.set))
        label = find_label(options.label, (options.conf or DEFAULT_CONF).with_name(LABELS_FILE))
        workspace = Path(mkdtemp(prefix="training-", dir=_existing_parent(options.out)))
        examples, propensity = _read_data(options, training, log, label, workspace / "examples")
        trained = with_report(train_model(examples, training, label, propensity, options.version, print))
        write_bundle(options.out, trained.manifest, trained.files)
    except (ValueError, OSError, TrackingError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    finally:
        if workspace is not None:
            shutil.rmtree(workspace)
    print(summary(trained.manifest))
    if saved := saving(trained):
        print(saved)
    print(recommendation_text(recommend(trained)))
    print(f"wrote {options.out}; read {options.out / REPORT_FILE}")
    try:
        if is_tracked():
            print(track(options.out, trained, training))
    except TrackingError as error:
        print(f"train: {error}; {options.out} is complete all the same", file=sys.stderr)
        return 1
    return 0


def summary(manifest: Manifest) -> str:
    """What came of a training, a few lines."""
    metrics = manifest.metrics
    best = metrics.get("best_possible_test_auc")
    is_rough = metrics["test_positive_users"] < RELIABLE_USERS
    return "\n".join(
        [
            f"model {manifest.version}: {metrics['rounds']:.0f} trees, {len(manifest.features)} features",
            f"test AUC {metrics['test_roc_auc']:.4f} ({metrics['test_roc_auc_low']:.4f} to "
            f"{metrics['test_roc_auc_high']:.4f})" + (f", best possible {best:.4f}" if best is not None else ""),
            f"test events {metrics['test_events']:.0f}, {metrics['test_positive_rate']:.2%} positive, "
            f"of {metrics['test_positive_users']:.0f} users" + (": too few for a reliable AUC" if is_rough else ""),
        ]
    )


def _existing_parent(path: Path) -> Path:
    """Where the examples are laid out while training: on the disk that the bundle is for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent


def _feature_log(options: argparse.Namespace, training: Training) -> tuple[Training, FeatureLog | None]:
    """The log to take features from, if any, and the settings that it leaves possible."""
    if options.feature_log is None and options.logged_by is None:
        return training, None
    if options.feature_log is None or options.logged_by is None:
        raise TrainingError("--feature-log and --logged-by go together: the bundle names what is in the log")
    if options.simulate or options.profiles:
        raise TrainingError("--feature-log goes with --clicks alone: the log has what the job knew of profiles")
    manifest = load_bundle(options.logged_by, None).manifest
    log = FeatureLog(options.feature_log, manifest.feature_schema_hash, manifest.features)
    return for_logged(training, manifest.features, manifest.history_length), log


def _read_data(
    options: argparse.Namespace, training: Training, log: FeatureLog | None, label: Label, directory: Path
) -> tuple[Examples, np.ndarray | None]:
    """The examples and, where it is known, their true propensity."""
    if options.simulate:
        stream = simulate(Simulation(options.users, options.hours, options.data_seed))
        examples = simulated_examples(stream, label, training.history_length)
        print(f"{len(stream)} clicks of {options.users} users")
        return examples, stream.propensity[examples.offset] if label.is_same_as(CONVERTED) else None
    directories, found = _prepare(options, training, log, label, directory)
    print(overview(found))
    for line in warnings(found, options.clicks, options.profiles, options.feature_log):
        print(f"train: {line}", file=sys.stderr)
    share = share_that_fits(found.examples, found.positives, training.negative_share, training.max_rows)
    if share < training.negative_share:
        print(f"more than {training.max_rows} events: training with {share:.1%} of the negatives")
    return load_examples(directories, share, training.seed), None


def _prepare(
    options: argparse.Namespace, training: Training, log: FeatureLog | None, label: Label, directory: Path
) -> tuple[list[Path], Summary]:
    mapping = load_mapping(options.mapping) if options.mapping else None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, int] = {}

        def progress(what: str, done: int, total: int, events: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, description=f"{what} {events} events")

        preparation = Preparation(label, history_length=training.history_length, workers=training.threads, log=log)
        return prepare(options.clicks, directory, preparation, options.profiles, mapping, progress)


def _parser() -> argparse.ArgumentParser:
    simulation = Simulation()
    parser = argparse.ArgumentParser(prog="python -m training.train", description=main.__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--simulate", action="store_true", help="train on a simulated shop")
    source.add_argument("--clicks", type=Path, help="a file or directory: an archive, CSV, JSON Lines, Parquet")
    parser.add_argument(
        "--profiles", type=Path, help="an archive, or JSON Lines; there `updated_at` (ms) says since when"
    )
    parser.add_argument("--mapping", type=Path, help="YAML that adapts foreign columns, as of jobs.ops.replay")
    parser.add_argument(
        "--feature-log",
        type=Path,
        help="the job's archived feature_log: features as they were scored",
    )
    parser.add_argument("--logged-by", type=Path, help="the bundle that scored them, which names them")
    parser.add_argument(
        "--label",
        default="purchase within 30 min",
        help="name from labels.yaml beside --conf, or 'EVENT within DURATION' (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, required=True, help="the bundle's directory, which must not exist yet")
    parser.add_argument("--version", help="of the model; by default the end of its data and its hash")
    parser.add_argument("--conf", type=Path, help="YAML of settings, for example conf/training.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override, e.g. folds=3")
    parser.add_argument("--users", type=int, default=simulation.users, help="to simulate")
    parser.add_argument("--hours", type=float, default=simulation.hours, help="to simulate")
    parser.add_argument("--data-seed", type=int, default=simulation.seed, help="of the simulation")
    return parser


if __name__ == "__main__":
    sys.exit(main())
