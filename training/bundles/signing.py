"""Keys of data scientists and of retraining, and the signatures that they put on bundles. udfs/models/signatures.py
defines and checks them.
"""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from udfs.models.bundle import MANIFEST_FILE, directory_files
from udfs.models.signatures import SIGNATURE_FILE, PublicKey, SignatureError, public_key_of, sign


def write_new_key(path: Path) -> PublicKey:
    """Make a key pair and write the signing key as PKCS 8 in PEM, readable by the user alone; return the public key.

    Raises FileExistsError rather than to write over a key.
    """
    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    return public_key_of(key)


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Read a signing key. Raises SignatureError, which names the file but nothing of its content."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise SignatureError(f"{path}: cannot be read: {error.strerror}; `intent sign key` makes a key") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise SignatureError(f"{path}: expected an Ed25519 key as PKCS 8 in PEM, without a passphrase") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{path}: expected an Ed25519 key, got {type(key).__name__.strip('_')}")
    return key


def sign_bundle(directory: Path, signing_key: Ed25519PrivateKey) -> None:
    """Sign the bundle in a directory; a signature that it has is replaced.

    Raises BundleError when a file is not what the manifest says.
    """
    files = directory_files(directory)
    unfinished = directory / f".{SIGNATURE_FILE}"
    unfinished.write_bytes(sign(files[MANIFEST_FILE], signing_key))
    unfinished.replace(directory / SIGNATURE_FILE)
