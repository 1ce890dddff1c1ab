"""Signatures of bundles: what they cover, whose are accepted, and what each refusal says."""

import json
import shutil
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bundles import make_bundle
from training.bundles.signing import sign_bundle
from udfs.models import bundle as bundle_module
from udfs.models.bundle import (
    EXPORT_FILE,
    MANIFEST_FILE,
    WARM_UP_FILE,
    XGBOOST_FILE,
    BundleError,
    directory_files,
    load_bundle,
)
from udfs.models.signatures import SIGNATURE_FILE, SignatureError, check_signature, key_id, public_key_of, sign

KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
PUBLIC, OTHER_PUBLIC = public_key_of(KEY), public_key_of(OTHER)
MANIFEST = b'{"version": "v1"}'

#: RFC 8032, section 7.1, test 1: an empty message.
RFC_PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
RFC_SIGNATURE = (
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe2465"
    "5141438e7a100b"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles"), "v1")


@pytest.fixture
def signed(made, tmp_path) -> Path:
    directory = shutil.copytree(made, tmp_path / "v1")
    sign_bundle(directory, KEY)
    return directory


def refusal(directory: Path, *trusted: str) -> str:
    with pytest.raises(BundleError) as refused:
        load_bundle(directory, 64, trusted or (PUBLIC,))
    message = str(refused.value)
    assert "\n" not in message
    return message.replace(f"{directory.parent}/", "")


def edit_manifest(directory: Path, edit) -> None:
    manifest = json.loads((directory / MANIFEST_FILE).read_bytes())
    edit(manifest)
    (directory / MANIFEST_FILE).write_text(json.dumps(manifest))


def test_the_signature_of_the_standard_is_accepted():
    key = b64encode(bytes.fromhex("302a300506032b6570032100" + RFC_PUBLIC)).decode()
    signature = b64encode(bytes.fromhex(RFC_SIGNATURE)).decode()
    check_signature(b"", json.dumps({"key": key_id(key), "signature": signature}).encode(), [key])


@given(st.integers(0, len(MANIFEST) - 1), st.integers(1, 255))
def test_a_signature_is_for_each_byte_of_the_manifest(position, change):
    signature = sign(MANIFEST, KEY)
    check_signature(MANIFEST, signature, [OTHER_PUBLIC, PUBLIC])
    changed = bytearray(MANIFEST)
    changed[position] ^= change
    with pytest.raises(SignatureError, match=f"not the signature of key {key_id(PUBLIC)} for this manifest"):
        check_signature(bytes(changed), signature, [PUBLIC])


@given(
    st.binary(max_size=80) | st.text().map(lambda text: json.dumps({"key": key_id(PUBLIC), "signature": text}).encode())
)
def test_what_is_no_signature_is_refused(content):
    with pytest.raises(SignatureError):
        check_signature(MANIFEST, content, [PUBLIC])


def test_a_signature_by_another_key_is_refused_with_the_ids_of_both():
    with pytest.raises(SignatureError) as refused:
        check_signature(MANIFEST, sign(MANIFEST, OTHER), [PUBLIC])
    assert str(refused.value).startswith(f"signed by key '{key_id(OTHER_PUBLIC)}', trusted_keys has {key_id(PUBLIC)}: ")


def test_the_key_in_the_file_is_only_a_hint(signed):
    forged = json.loads(sign((signed / MANIFEST_FILE).read_bytes(), OTHER)) | {"key": key_id(PUBLIC)}
    (signed / SIGNATURE_FILE).write_text(json.dumps(forged))
    assert f"{SIGNATURE_FILE}: not the signature of key {key_id(PUBLIC)}" in refusal(signed)


def test_a_bundle_signed_by_one_of_the_trusted_keys_is_loaded(signed):
    assert load_bundle(signed, 64, (OTHER_PUBLIC, PUBLIC)).manifest.version == "v1"
    sign_bundle(signed, OTHER)  # the other key takes over
    assert "signed by key" in refusal(signed, PUBLIC)
    assert load_bundle(signed, 64, (OTHER_PUBLIC,)).manifest.version == "v1"


def test_an_unsigned_bundle_is_refused_only_where_keys_are_trusted(made):
    assert load_bundle(made, 64).manifest.version == "v1"
    assert refusal(made) == (
        f"v1: not signed: {SIGNATURE_FILE} is missing, and trusted_keys requires it; `intent sign` makes one"
    )


@pytest.mark.parametrize("name", [XGBOOST_FILE, EXPORT_FILE, WARM_UP_FILE])
def test_a_file_that_was_changed_together_with_its_hash_is_refused(signed, name):
    content = (signed / name).read_bytes() + b" "
    (signed / name).write_bytes(content)
    edit_manifest(signed, lambda manifest: manifest["files"].update({name: sha256(content).hexdigest()}))
    assert "not the signature" in refusal(signed)


def test_a_file_can_neither_be_removed_from_the_list_nor_added_to_it(signed):
    manifest = (signed / MANIFEST_FILE).read_bytes()
    edit_manifest(signed, lambda manifest: manifest["files"].pop(WARM_UP_FILE))
    assert load_bundle(signed, 64).warm_up is None  # what the signature prevents
    assert "not the signature" in refusal(signed)
    (signed / "features.json").write_text("{}")
    edit_manifest(signed, lambda manifest: manifest["files"].update({"features.json": sha256(b"{}").hexdigest()}))
    assert "not the signature" in refusal(signed)
    (signed / MANIFEST_FILE).write_bytes(manifest)
    assert load_bundle(signed, 64, (PUBLIC,)).warm_up is not None  # a file that is not listed is not read
    assert "features.json" not in directory_files(signed, (PUBLIC,))
    (signed / WARM_UP_FILE).unlink()
    assert "warm_up.json: cannot be read" in refusal(signed)


def test_a_damaged_bundle_is_not_signed(made, tmp_path):
    directory = shutil.copytree(made, tmp_path / "v1")
    (directory / EXPORT_FILE).write_bytes(b"damaged")
    with pytest.raises(BundleError, match="model.onnx: sha256 is"):
        sign_bundle(directory, KEY)
    assert not (directory / SIGNATURE_FILE).exists()


@pytest.mark.parametrize("name", [MANIFEST_FILE, XGBOOST_FILE, SIGNATURE_FILE])
def test_a_file_that_is_too_large_is_not_read(signed, name, monkeypatch):
    with (signed / name).open("ab") as file:
        file.truncate(5 << 20)
    monkeypatch.setattr(bundle_module, "LARGEST_FILE", 4 << 20)
    assert f"{name}: cannot be read: it has 5 MiB, a file may have 4 MiB" in refusal(signed)
