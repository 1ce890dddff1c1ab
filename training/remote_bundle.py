"""Make the bundle of a model that another process serves over the Open Inference Protocol v2:

    python -m training.remote_bundle --url http://HOST:PORT --model NAME --features-of BUNDLE --out DIR

Features, history length, label and warm-up rows are those of a bundle that is there. The endpoint's scores of the
warm-up rows, asked for now, are what it has to give again wherever the new bundle is loaded.
"""

import argparse
import sys
from pathlib import Path

import msgspec
import numpy as np

from training.bundles.reference import warm_up_rows
from training.bundles.writer import describe_model, write_bundle
from udfs.models.bundle import ENDPOINT_FILE, WARM_UP_FILE, BundleError, load_bundle
from udfs.models.remote import Endpoint, RemoteScorer


def main(arguments: list[str] | None = None) -> int:
    """Make the bundle of a model that another process serves over the Open Inference Protocol v2."""
    options = _parser().parse_args(arguments)
    try:
        print(make_remote_bundle(_endpoint(options), options.features_of, options.out, options.version))
    except (ValueError, OSError) as error:
        print(f"remote_bundle: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def make_remote_bundle(endpoint: Endpoint, features_of: Path, out: Path, version: str | None) -> str:
    """Write the bundle; returns a line that says so. Raises BundleError, RemoteError and OSError."""
    known = load_bundle(features_of, None)
    if known.warm_up is None:
        raise BundleError(f"{features_of}: has no {WARM_UP_FILE}, so there are no rows to ask the endpoint about")
    manifest, rows = known.manifest, known.warm_up.features
    scores = RemoteScorer(endpoint).predict(rows)
    files = {
        ENDPOINT_FILE: msgspec.json.format(msgspec.json.encode(endpoint)),
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
    off = float(np.abs(scores - known.warm_up.scores).max())
    return (
        f"wrote {out}: {described.version}, {endpoint.address}; its scores of {len(rows)} rows differ from those of "
        f"{manifest.version} by up to {off:.1e}"
    )


def _endpoint(options: argparse.Namespace) -> Endpoint:
    given = {name: getattr(options, name) for name in Endpoint.__struct_fields__ if getattr(options, name) is not None}
    try:
        return msgspec.convert(given, Endpoint)
    except msgspec.ValidationError as error:
        raise BundleError(f"endpoint: {error}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.remote_bundle", description=main.__doc__)
    parser.add_argument("--url", required=True, help="of the server, for example http://models:8000")
    parser.add_argument("--model", required=True, help="its name there")
    parser.add_argument("--model-version", help="one of its versions there; by default the server chooses")
    parser.add_argument("--input", help="name of the input tensor (features)")
    parser.add_argument("--output", help="name of the output tensor (probabilities)")
    parser.add_argument("--column", type=int, help="of a 2-D output, the one with the label's probability")
    parser.add_argument("--timeout-ms", type=int, help="for a batch, retries included (100)")
    parser.add_argument("--max-batch", type=int, help="rows in a request (1000)")
    parser.add_argument("--token-env", help="the environment variable with a bearer token")
    parser.add_argument("--features-of", required=True, type=Path, metavar="BUNDLE", help="with the same features")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the new bundle's directory")
    parser.add_argument("--version", help="by default the time and a hash")
    return parser


if __name__ == "__main__":
    sys.exit(main())
