"""Signatures of bundles: Ed25519 (RFC 8032) over the bytes of `manifest.json`, in `signature.json` beside it.

The manifest lists all files of a bundle with their SHA-256, so one signature covers them, their number and the version.
Keys have OpenSSL's formats, so that OpenSSL or a key management service can sign as well. The library is imported only
where it is needed: a job without trusted keys does not load it.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURE_FILE = "signature.json"

# DER of a SubjectPublicKeyInfo with the OID of Ed25519 (RFC 8410), up to the 32 bytes of the key: 16 digits of Base64.
_DER_PREFIX = bytes.fromhex("302a300506032b6570032100")

#: A public key: the one line of Base64 in the PEM file that `openssl pkey -pubout` writes.
PublicKey = Annotated[str, Meta(pattern="^MCowBQYDK2VwAyEA[A-Za-z0-9+/]{43}=$", title="public key")]


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of SIGNATURE_FILE."""

    key: str  # the id of the public key
    signature: str  # Base64 of the 64 bytes


class SignatureError(ValueError):
    """A signature that is not valid, or not by a trusted key; the message is one line with the rule and the remedy."""


def key_id(public_key: PublicKey) -> str:
    """A short name of a key for messages: the first 16 digits of the SHA-256 of its 32 bytes."""
    return sha256(_key_bytes(public_key)).hexdigest()[:16]


def public_key_of(signing_key: Ed25519PrivateKey) -> PublicKey:
    """The public key that belongs to a signing key, as settings list it."""
    return b64encode(_DER_PREFIX + signing_key.public_key().public_bytes_raw()).decode()


def sign(manifest: bytes, signing_key: Ed25519PrivateKey) -> bytes:
    """The content of SIGNATURE_FILE for the bytes of a manifest; the same whenever it is made."""
    signature = b64encode(signing_key.sign(manifest)).decode()
    return msgspec.json.encode(Signature(key_id(public_key_of(signing_key)), signature)) + b"\n"


def check_signature(manifest: bytes, signature: bytes, trusted_keys: Sequence[PublicKey]) -> None:
    """Raises SignatureError unless `signature`, the content of SIGNATURE_FILE, is a trusted key's for this manifest."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        parsed = msgspec.json.decode(signature, type=Signature)
        signed = b64decode(parsed.signature, validate=True)
    except (msgspec.DecodeError, ValueError) as error:
        raise SignatureError(f"not a signature: {error}") from None
    keys = {key_id(key): key for key in trusted_keys}
    if parsed.key not in keys:
        raise SignatureError(
            f"signed by key {parsed.key[:16]!r}, trusted_keys has {', '.join(keys)}: sign it with one of these, or add "
            "the key to trusted_keys"
        )
    try:
        Ed25519PublicKey.from_public_bytes(_key_bytes(keys[parsed.key])).verify(signed, manifest)
    except InvalidSignature:
        raise SignatureError(
            f"not the signature of key {parsed.key} for this manifest: one of the two was changed"
        ) from None


def _key_bytes(public_key: PublicKey) -> bytes:
    return b64decode(public_key)[len(_DER_PREFIX) :]
