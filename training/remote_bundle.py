"""Make a bundle for a model that another process serves over the Open Inference Protocol v2:

    python -m training.remote_bundle --url http://HOST:PORT --model NAME --features-of BUNDLE --out DIR

The new bundle takes features, history length, label and warm-up rows from an existing one. The command asks the
endpoint to score the warm-up rows; wherever the new bundle is loaded, the endpoint must reproduce these scores.

Exit codes: 0, the bundle is written; 2, refused, no bundle.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from training.bundles.drift_reference import warm_up_rows
from training.bundles.writer import describe_model, write_bundle
from udfs.config.command_line import EXIT_USAGE, PATH, Command, run
from udfs.features.declaration_file import to_json
from udfs.models.bundle import ENDPOINT_FILE, FEATURES_FILE, WARM_UP_FILE, BundleError, load_bundle
from udfs.models.remote import Endpoint, RemoteScorer

#: The defaults of an endpoint.
ENDPOINT = {field.name: field.default for field in msgspec.structs.fields(Endpoint)}


def make_remote_bundle(endpoint: Endpoint, features_of: Path, out: Path, version: str | None) -> str:
    """Write the bundle; returns a line that describes it. Raises BundleError, RemoteError and OSError."""
    known = load_bundle(features_of, None)
    if known.warm_up is None:
        raise BundleError(f"{features_of}: {WARM_UP_FILE} is missing, so there are no rows for the endpoint to score")
    manifest, rows = known.manifest, known.warm_up.features
    scores = RemoteScorer(endpoint).predict(rows)
    files = {
        ENDPOINT_FILE: msgspec.json.format(msgspec.json.encode(endpoint)),
        FEATURES_FILE: to_json(known.declaration),
        WARM_UP_FILE: warm_up_rows(manifest.features, rows, scores, seed=0),  # all of them,
    }
    described = describe_model(
        files,
        manifest.features,
        history_length=manifest.history_length,
        label=manifest.label,
        training_window=manifest.training_window,
        metrics={},
        version=version,
    )
    write_bundle(out, described, files)
    deviation = float(np.abs(scores - known.warm_up.scores).max())
    return (
        f"wrote {out}: {described.version}, {endpoint.address}; its scores of {len(rows)} rows differ from those of "
        f"{manifest.version} by up to {deviation:.1e}"
    )


def _endpoint(given: dict[str, Any]) -> Endpoint:
    try:
        return msgspec.convert({name: value for name, value in given.items() if value is not None}, Endpoint)
    except msgspec.ValidationError as error:
        raise BundleError(f"endpoint: {error}") from None


@click.command("remote-bundle", cls=Command, errors={ValueError: EXIT_USAGE, OSError: EXIT_USAGE})
@click.option("--url", required=True, metavar="URL", help="Address of the server, for example http://models:8000.")
@click.option("--model", required=True, metavar="NAME", help="Name of the model on the server.")
@click.option(
    "--model-version", metavar="NAME", help="Version of the model on the server; by default the server chooses."
)
@click.option("--input", metavar="NAME", help="Name of the input tensor.", default=ENDPOINT["input"])
@click.option("--output", metavar="NAME", help="Name of the output tensor.", default=ENDPOINT["output"])
@click.option("--column", type=int, help="Column of a 2-D output that has the probability of the label, from 0.")
@click.option(
    "--timeout-ms", type=int, help="Timeout per batch in ms, retries included.", default=ENDPOINT["timeout_ms"]
)
@click.option("--max-batch", type=int, help="Maximum number of rows per request.", default=ENDPOINT["max_batch"])
@click.option("--token-env", metavar="NAME", help="Environment variable that holds a bearer token.")
@click.option(
    "--features-of", type=PATH, required=True, metavar="BUNDLE", help="Existing bundle with the same features."
)
@click.option(
    "--out", type=PATH, required=True, metavar="DIR", help="Directory of the new bundle, which must not exist."
)
@click.option("--version", metavar="NAME", help="Version of the new bundle; by default the time and a hash.")
def command(features_of: Path, out: Path, version: str | None, **endpoint: Any) -> None:
    """Make a bundle for a model that another process serves.

    The server must speak the Open Inference Protocol v2. It is asked to score the warm-up rows of the existing bundle.

    \b
    Examples:
      intent remote-bundle --url http://models:8000 --model intent --features-of models/first --out models/remote
      intent remote-bundle --url http://models:8000 --model m --column 1 --features-of models/first --out models/m
    """
    print(make_remote_bundle(_endpoint(endpoint), features_of, out, version))


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the bundle; return the exit code."""
    return run(command, "python -m training.remote_bundle", arguments)


if __name__ == "__main__":
    sys.exit(main())
