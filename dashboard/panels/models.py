"""The models: those that serve and since when, the ledger, and the retraining runs.

A thread of its own reads the registry, which may be slow.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from dashboard.wording import value_text
from training.retraining.run_store import read_runs
from udfs.config.text import one_line
from udfs.features.declaration import Declaration
from udfs.measurement.drift import REFERENCE_FILE
from udfs.models.bundle import BundleError, Manifest, read_features, read_manifest
from udfs.models.signatures import PublicKey
from udfs.rollout.plan import Rollout
from udfs.rollout.registry import Entry, Registry, RegistryError

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
MAX_ENTRIES = 200
MAX_RUNS = 30
METRICS = ("test_roc_auc", "test_average_precision", "test_log_loss")


class PublishedDistribution(msgspec.Struct):
    """The distribution of a feature or score at training; training/bundles/drift_reference.py defines the bins."""

    shares: list[float]
    missing: float
    edges: list[float] = []
    values: list[float] | None = None  # of a code or a constant: those with a bin of their own

    def bins(self, text: Callable[[float], str] = "{:g}".format) -> list[str]:
        """What is in each bin, in words; `text` names the value of a code or a constant."""
        if self.values is not None and not self.edges:  # earlier releases had both, and bins between the edges
            names = [text(value) for value in self.values]
            return names + ["rare values"] * (len(self.shares) - len(names))
        edges = [f"{edge:.0f}" if abs(edge) >= 1000 else f"{edge:.3g}" for edge in self.edges]
        if not edges:
            return ["all values"]
        between = [f"{low} to {high}" for low, high in pairwise(edges)]
        return [f"below {edges[0]}", *between, f"{edges[-1]} or more"]


class PublishedReference(msgspec.Struct):
    features: dict[str, PublishedDistribution]
    score: PublishedDistribution


class ModelPanel:
    """The state of the registry or, without one, of the single bundle."""

    def __init__(self, registry: str | None, bundle: Path, trusted_keys: Sequence[PublicKey] = ()):
        """Open the registry. Raises RegistryError for a URL that no installed file system can read."""
        self.registry = Registry(registry, trusted_keys) if registry else None
        self._bundle, self._trusted_keys = bundle, trusted_keys
        self._entries: dict[int, Entry | str | None] = {}  # by number; what is wrong with one that can't be used
        self._references: dict[str, PublishedReference] = {}
        self._declarations: dict[str, Declaration] = {}
        self._summary: dict = {"error": "not loaded yet"}

    def look(self) -> None:
        """Read changes of the registry or bundle; an error goes into the summary."""
        try:
            self._summary = self._from_registry() if self.registry else self._from_bundle()
        except Exception as error:  # each file system has its own; the page shows it, and the next look is soon
            log.warning("models: %s", error)
            self._summary = self._summary | {"error": one_line(error) or type(error).__name__}

    def summary(self) -> dict:
        """Serving models, the ledger (newest first), metrics by version, retraining runs; and an error, or null."""
        return self._summary

    def reference(self, version: str, name: str) -> PublishedDistribution | None:
        """The distribution of a feature, or of `score`, at training; None if the bundle does not have it."""
        if version not in self._references:
            read = self._read_reference(version)
            if read is None:
                return None
            self._references[version] = read
        reference = self._references[version]
        return reference.score if name == "score" else reference.features.get(name)

    def bins(self, version: str, name: str) -> list[str] | None:
        """What is in each bin of `reference`, in words, and codes by the names that the bundle's features give them.

        None if the bundle does not have the distribution.
        """
        known = self.reference(version, name)
        if known is None:
            return None
        declared = self._declaration(version)
        if declared is None or name not in declared or not declared.is_code(name):
            return known.bins()
        return known.bins(lambda value: value_text(declared, name, value))

    def _from_bundle(self) -> dict:
        manifest = read_manifest(lambda name: (self._bundle / name).read_bytes(), str(self._bundle), self._trusted_keys)
        arms = [{"arm": "champion", "version": manifest.version, "share": 1.0, "shadow": False}]
        return {
            "error": None,
            "registry": None,
            "serving": arms,
            "ledger": [],
            "shares": [],
            "models": {manifest.version: _metrics(manifest)},
            "runs": [],
        }

    def _from_registry(self) -> dict:
        registry = self.registry
        newest = registry.newest()
        for number in registry.numbers()[-MAX_ENTRIES:]:
            if not isinstance(self._entries.get(number), Entry):  # what is not whole, or was not read, may become so
                self._entries[number] = _entry(registry, number)
        numbers = sorted(self._entries)[-MAX_ENTRIES:]
        self._entries = {number: self._entries[number] for number in numbers}
        whole = [entry for entry in self._entries.values() if isinstance(entry, Entry)]
        versions = dict.fromkeys(version for entry in reversed(whole) for version in entry.rollout.versions)
        known = self._summary.get("models", {})
        models = {version: known.get(version) or self._metrics(version) for version in [*versions][:50]}
        runs, problem = [], self._refusal([version for version in newest.rollout.versions if not models.get(version)])
        try:
            runs = msgspec.to_builtins(read_runs(registry, MAX_RUNS)[::-1])
        except RegistryError as error:  # the serving models are shown despite a broken record
            problem = problem or str(error)
        return {
            "error": problem,
            "registry": registry.uri,
            "serving": serving(newest.rollout),
            "ledger": [_line(number, self._entries[number], newest.number) for number in reversed(numbers)],
            "shares": [{"at": _ms(entry), "arms": serving(entry.rollout)} for entry in whole],
            "models": models,
            "runs": runs,
        }

    def _refusal(self, versions: Sequence[str]) -> str | None:
        """Why jobs refuse the first of these models that they refuse, as far as its manifest shows."""
        try:
            for version in versions:
                self.registry.manifest(version)
        except BundleError as error:
            return f"jobs refuse the newest entry: {error}"
        return None

    def _metrics(self, version: str) -> dict | None:
        try:
            return _metrics(self.registry.manifest(version))
        except BundleError:
            return None

    def _read_reference(self, version: str) -> PublishedReference | None:
        try:
            if self.registry:
                content = self.registry.read("bundles", version, REFERENCE_FILE)
            else:
                content = (self._bundle / REFERENCE_FILE).read_bytes()
            return msgspec.json.decode(content, type=PublishedReference)
        except (OSError, RegistryError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.warning("%s of %s: %s", REFERENCE_FILE, version, error)
            return None

    def _declaration(self, version: str) -> Declaration | None:
        """The declaration of a bundle's features; None if it cannot be read."""
        if version not in self._declarations:
            try:
                self._declarations[version] = self._read_declaration(version)
            except (OSError, BundleError, RegistryError) as error:
                log.warning("features of %s: %s", version, error)
                return None
        return self._declarations[version]

    def _read_declaration(self, version: str) -> Declaration:
        if self.registry:
            return self.registry.declaration(version)
        read, origin = lambda name: (self._bundle / name).read_bytes(), str(self._bundle)
        return read_features(read, origin, read_manifest(read, origin))


class ModelsThread(threading.Thread):
    """Updates the models until `stop`."""

    def __init__(self, models: ModelPanel):
        super().__init__(name="models", daemon=True)
        self._models = models
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.is_set():
            self._models.look()
            self._stopping.wait(LOOK_SECONDS)

    def stop(self) -> None:
        self._stopping.set()
        self.join()


def serving(rollout: Rollout) -> list[dict]:
    """The arms with their shares of the eligible users, and the shadows with none."""
    rest = 1 - rollout.control.share - sum(part.share for part in rollout.challengers)
    arms = [("champion", rollout.champion, rest, False)]
    arms += [("challenger", part.version, part.share, False) for part in rollout.challengers]
    if rollout.control.share:
        arms.append(("control", "rule", rollout.control.share, False))
    arms += [("shadow", version, 0.0, True) for version in rollout.shadows]
    return [
        {"arm": arm, "version": version, "share": round(share, 6), "shadow": shadow}
        for arm, version, share, shadow in arms
    ]


def _entry(registry: Registry, number: int) -> Entry | str | None:
    try:
        return registry.entry(number)
    except RegistryError as error:
        return str(error)


def _line(number: int, entry: Entry | str | None, serves: int) -> dict:
    if not isinstance(entry, Entry):
        return {"number": number, "problem": entry or "incomplete, skipped"}
    return {
        "number": number,
        "at": _ms(entry),
        "by": entry.by,
        "command": " ".join(entry.command),
        "why": entry.why,
        "forced": entry.forced,
        "restores": entry.restores,
        "serves": number == serves,
    }


def _ms(entry: Entry) -> int:
    return int(entry.at.timestamp() * 1000)


def _metrics(manifest: Manifest) -> dict:
    return {
        "label": str(manifest.label),
        "created_at": int(manifest.created_at.timestamp() * 1000),
        "trained_to": int(manifest.training_window.end.timestamp() * 1000),
        "metrics": {
            name: [manifest.metrics.get(f"{name}{end}") for end in ("", "_low", "_high")]
            for name in METRICS
            if name in manifest.metrics
        },
    }
