"""Sign bundles, so that jobs with trusted keys serve them: `python -m training.sign bundle DIR --signing-key FILE`.

Exit codes: 0, done; 2, refused: nothing is written, and one line on standard error says why.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from training.bundles.signing import load_signing_key, sign_bundle, write_new_key
from training.rollout.atomic_files import replace_file
from udfs.config.command_line import EXIT_USAGE, PATH, Group, run
from udfs.models.bundle import MANIFEST_FILE
from udfs.models.signatures import SIGNATURE_FILE, key_id, public_key_of, sign
from udfs.rollout.registry import Registry


def signing_key_option(function: Callable) -> Callable:
    return click.option(
        "--signing-key", type=PATH, required=True, metavar="FILE", help="Signing key, as `intent sign key` writes it."
    )(function)


@click.command("sign", cls=Group, errors={ValueError: EXIT_USAGE, OSError: EXIT_USAGE})
def command() -> None:
    """Sign bundles, so that jobs with trusted keys serve them.

    A signature covers the manifest and, by the hashes in it, all files of the bundle.

    \b
    Examples:
      intent sign key signing.pem
      intent sign bundle models/second --signing-key signing.pem
    """


@command.command("key")
@click.argument("file", type=PATH, metavar="FILE", help="File of the new signing key, which must not exist.")
def new_key(file: Path) -> None:
    """Make a key pair: write the signing key, print the public key.

    Keep the file secret. The public key goes into `trusted_keys` of the settings.

    \b
    Examples:
      intent sign key signing.pem
    """
    public_key = write_new_key(file)
    print(f"wrote {file}: keep it secret")
    print(f"public key {key_id(public_key)}, for trusted_keys:")
    print(public_key)


@command.command("bundle")
@click.argument("directory", type=PATH, metavar="DIR", help="Directory of the bundle.")
@signing_key_option
def bundle(directory: Path, signing_key: Path) -> None:
    """Sign the bundle in a directory, before `intent promote stage`.

    \b
    Examples:
      intent sign bundle models/second --signing-key signing.pem
    """
    key = load_signing_key(signing_key)
    sign_bundle(directory, key)
    print(f"{directory}: signed by key {key_id(public_key_of(key))}")


@command.command("staged")
@click.argument("version", help="Version of a staged model.")
@click.option(
    "--registry",
    required=True,
    metavar="URI",
    help="Registry: a directory or an fsspec URL, such as s3://bucket/registry.",
)
@signing_key_option
def staged(version: str, registry: str, signing_key: Path) -> None:
    """Sign a bundle that is in the registry already.

    The signature says that what is there now may serve. If you have a copy of the bundle, sign that and stage it again.

    \b
    Examples:
      intent sign staged v1 --registry models/registry --signing-key signing.pem
    """
    key, opened = load_signing_key(signing_key), Registry(registry)
    signature = sign(opened.bundle_files(version)[MANIFEST_FILE], key)
    replace_file(opened, ("bundles", version, SIGNATURE_FILE), signature)
    print(f"{opened.origin(version)}: signed by key {key_id(public_key_of(key))}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Make a key or sign a bundle; return the exit code."""
    return run(command, "python -m training.sign", arguments)


if __name__ == "__main__":
    sys.exit(main())
