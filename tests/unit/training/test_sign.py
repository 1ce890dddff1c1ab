"""The way of a signed model: keys, signatures, admission, a change that jobs refuse, and the return of an old model."""

import shutil
import stat

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.bundles import make_bundle
from training import promote, sign
from training.bundles.signing import load_signing_key
from training.retraining.settings import RETRAINING_FILE, RetrainingError, load_recipe
from training.rollout.ledger import append, next_entry
from training.rollout.transitions import first
from udfs.models.signatures import SIGNATURE_FILE, SignatureError, key_id
from udfs.rollout.registry import Registry
from udfs.serving.bootstrap import follow, serving_registry
from udfs.serving.deployment import Options


class Shop:
    """A registry, a key, settings that trust it, and the commands of somebody who works with them."""

    def __init__(self, directory, capsys):
        self.directory, self.uri, self._capsys = directory, str(directory / "registry"), capsys
        self.public_key = self.make_key("key.pem")
        self.conf = directory / "admission.yaml"
        self.trust(self.public_key)

    def make_key(self, name: str) -> str:
        assert sign.main(["key", str(self.directory / name)]) == 0
        return self._capsys.readouterr().out.splitlines()[-1]

    def trust(self, *keys: str) -> None:
        self.conf.write_bytes(msgspec.yaml.encode({"admission": {"trusted_keys": keys}}))

    def sign(self, *arguments: str, key: str = "key.pem") -> None:
        assert sign.main([*arguments, "--signing-key", str(self.directory / key)]) == 0
        assert "signed by key" in self._capsys.readouterr().out

    def promote(self, *arguments: str) -> str:
        """Run a command; returns what it printed, or the line that refuses it."""
        changes = ["--why", "a test"] if arguments[0] not in ("stage", "show", "list") else []
        code = promote.main([*arguments, *changes, "--registry", self.uri, "--conf", str(self.conf)])
        out, err = self._capsys.readouterr()
        assert (code == 2, bool(err)) in ((True, True), (False, False))
        return (out + err).replace(f"{self.directory}/", "")


@pytest.fixture
def shop(tmp_path, capsys) -> Shop:
    return Shop(tmp_path, capsys)


def test_a_key_is_for_its_owner_alone_and_never_written_over(shop, capsys):
    path = shop.directory / "key.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_bytes()
    assert sign.main(["key", str(path)]) == 2
    assert "exists" in capsys.readouterr().err
    assert path.read_bytes() == content


def test_what_is_no_signing_key_is_refused_without_its_content(tmp_path):
    path = tmp_path / "key.pem"
    with pytest.raises(SignatureError, match="cannot be read: No such file"):
        load_signing_key(path)
    path.write_text("hunter2")
    with pytest.raises(SignatureError, match="expected an Ed25519 key as PKCS 8") as refused:
        load_signing_key(path)
    assert "hunter2" not in str(refused.value)
    other = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(other)
    with pytest.raises(SignatureError, match="expected an Ed25519 key, got "):
        load_signing_key(path)


def test_only_signed_models_are_admitted_and_an_older_one_comes_back_once_it_is_signed(shop):
    trusted = shop.conf.read_bytes()
    v1, v2 = (make_bundle(shop.directory, version) for version in ("v1", "v2"))
    assert shop.promote("stage", str(v1)).startswith(f"promote: v1: not signed: {SIGNATURE_FILE} is missing")
    shop.conf.write_text("")  # before there were keys
    shop.promote("stage", str(v1))
    shop.promote("start", "v1", "--champion")
    shop.promote("shadow", "v1")
    shop.sign("bundle", str(v2))
    shop.promote("stage", str(v2))
    shop.promote("start", "v2", "--at-most", "0.01")
    shop.promote("ramp", "v2", "--to-champion")
    shop.conf.write_bytes(trusted)
    assert "v1: cannot serve: registry/bundles/v1: not signed" in shop.promote("list")
    assert shop.promote("rollback").startswith("promote: registry/bundles/v1: not signed")
    shop.sign("staged", "v1", "--registry", shop.uri)
    assert "ledger entry 4 is now active" in shop.promote("rollback")
    assert Registry(shop.uri, (shop.public_key,)).bundle("v1").manifest.version == "v1"


def test_a_new_key_takes_over_from_the_old_one(shop):
    v1 = make_bundle(shop.directory, "v1")
    shop.sign("bundle", str(v1))
    shop.promote("stage", str(v1))
    new_key = shop.make_key("new.pem")
    shop.trust(shop.public_key, new_key)
    assert "ledger entry 1" in shop.promote("start", "v1", "--champion")
    shop.trust(new_key)
    refusal = shop.promote("stage", str(v1))
    assert f"signed by key '{key_id(shop.public_key)}', trusted_keys has {key_id(new_key)}" in refusal
    shop.sign("bundle", str(v1), key="new.pem")
    assert shop.promote("stage", str(v1)) == "v1: already staged\n"
    assert Registry(shop.uri, (new_key,)).manifest("v1").version == "v1"


def test_a_signed_bundle_does_not_pass_for_another_version(shop):
    v1 = make_bundle(shop.directory, "v1")
    shop.sign("bundle", str(v1))
    shop.promote("stage", str(v1))
    shutil.copytree(shop.directory / "registry" / "bundles" / "v1", shop.directory / "registry" / "bundles" / "v2")
    shop.promote("start", "v1", "--champion")
    assert "version is 'v1', expected 'v2'" in shop.promote("shadow", "v2")


def test_a_job_with_trusted_keys_refuses_an_unsigned_model_and_the_old_one_goes_on_serving(shop, caplog):
    for version in ("v1", "v2"):
        shop.sign("bundle", str(make_bundle(shop.directory, version)))
        shop.promote("stage", str(shop.directory / version))
    shop.promote("start", "v1", "--champion")
    poller = follow(serving_registry(shop.uri, 64, Options(), 3600.0, trusted_keys=(shop.public_key,)))
    try:
        signature = shop.directory / "registry" / "bundles" / "v2" / SIGNATURE_FILE
        signature.rename(shop.directory / SIGNATURE_FILE)
        registry = Registry(shop.uri)
        append(registry, next_entry(registry), first("v2"), by="me", command=("start",), why="no admission")
        poller.poll_once()
        assert (poller.number, poller.refused, poller.current.rollout.champion) == (1, 1, "v1")
        assert "entry 1 goes on serving" in caplog.text
        assert f"not signed: {SIGNATURE_FILE} is missing" in caplog.text
        (shop.directory / SIGNATURE_FILE).rename(signature)
        poller.poll_once()
        assert (poller.number, poller.current.rollout.champion) == (2, "v2")
    finally:
        poller.stop()
        poller.current.close()


def test_settings_of_retraining_whose_models_would_not_be_trusted_are_refused_at_once(shop):
    key = shop.directory / "key.pem"
    assert load_recipe(RETRAINING_FILE, [f"signing_key={key}"]).settings.signing_key == str(key)
    trusted = f"admission.trusted_keys=['{shop.public_key}']"
    load_recipe(RETRAINING_FILE, [f"signing_key={key}", trusted])
    for rules, problem in (
        ([trusted], "must be set (got null), as admission.trusted_keys is"),
        ([f"signing_key={key}x"], "key signing_key: .*key.pemx: cannot be read"),
        ([f"signing_key={key}", f"admission.trusted_keys=['{shop.make_key('new.pem')}']"], "is not among"),
        (["admission.trusted_keys=[abc]"], "key admission.trusted_keys.* expected a public key of Ed25519"),
    ):
        with pytest.raises(RetrainingError, match=problem.replace("(", r"\(").replace(")", r"\)")):
            load_recipe(RETRAINING_FILE, rules)
