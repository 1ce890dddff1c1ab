"""The models: which serve, since when, what the ledger says, and what retraining has done.

A thread of its own asks the registry, which may be far away.
"""

import logging
import threading
from pathlib import Path

import msgspec

from training.retraining.run_store import read_runs
from udfs.models.bundle import BundleError, Manifest, read_manifest
from udfs.rollout.plan import Rollout
from udfs.rollout.registry import Entry, Registry, RegistryError

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
MOST_ENTRIES = 200
MOST_RUNS = 30
REFERENCE_FILE = "reference.json"
METRICS = ("test_roc_auc", "test_average_precision", "test_log_loss")


class PublishedDistribution(msgspec.Struct):
    """How a feature or the score was spread in training; training/bundles/reference.py says what bin a value is in."""

    edges: list[float]
    shares: list[float]
    missing: float


class PublishedReference(msgspec.Struct):
    features: dict[str, PublishedDistribution]
    score: PublishedDistribution


class ModelPanel:
    """What the registry says; without one, what the single bundle does."""

    def __init__(self, registry: str | None, bundle: Path):
        """Raises RegistryError for a URL that no installed file system can read."""
        self.registry = Registry(registry) if registry else None
        self._bundle = bundle
        self._entries: dict[int, Entry | str | None] = {}  # by number; what is wrong with one that can't be used
        self._references: dict[str, PublishedReference] = {}
        self._summary: dict = {"error": "not loaded yet"}

    def look(self) -> None:
        """Read what is new."""
        try:
            self._summary = self._from_registry() if self.registry else self._from_bundle()
        except Exception as error:  # each file system has its own; the page says it, and the next look is soon
            log.warning("models: %s", error)
            self._summary = self._summary | {"error": " ".join(str(error).split()) or type(error).__name__}

    def summary(self) -> dict:
        """Who serves, the ledger (newest first), each version's metrics, retraining runs; and an error, or null."""
        return self._summary

    def reference(self, version: str, name: str) -> PublishedDistribution | None:
        """How a feature, or `score`, was spread when a model was trained; None where the bundle does not say."""
        if version not in self._references:
            read = self._read_reference(version)
            if read is None:
                return None
            self._references[version] = read
        found = self._references[version]
        return found.score if name == "score" else found.features.get(name)

    def _from_bundle(self) -> dict:
        manifest = read_manifest(lambda name: (self._bundle / name).read_bytes(), str(self._bundle))
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
        for number in registry.numbers()[-MOST_ENTRIES:]:
            if self._entries.get(number) is None:  # what is not whole may become so
                self._entries[number] = _entry(registry, number)
        numbers = sorted(self._entries)[-MOST_ENTRIES:]
        self._entries = {number: self._entries[number] for number in numbers}
        whole = [entry for entry in self._entries.values() if isinstance(entry, Entry)]
        versions = dict.fromkeys(version for entry in reversed(whole) for version in entry.rollout.versions)
        known = self._summary.get("models", {})
        runs, problem = [], None
        try:
            runs = msgspec.to_builtins(read_runs(registry, MOST_RUNS)[::-1])
        except RegistryError as error:  # a record that is broken is no reason not to say who serves
            problem = str(error)
        return {
            "error": problem,
            "registry": registry.uri,
            "serving": serving(newest.rollout),
            "ledger": [_line(number, self._entries[number], newest.number) for number in reversed(numbers)],
            "shares": [{"at": _ms(entry), "arms": serving(entry.rollout)} for entry in whole],
            "models": {version: known.get(version) or self._metrics(version) for version in [*versions][:50]},
            "runs": runs,
        }

    def _metrics(self, version: str) -> dict | None:
        try:
            return _metrics(self.registry.manifest(version))
        except BundleError:
            return None

    def _read_reference(self, version: str) -> PublishedReference | None:
        try:
            if self.registry:
                content = self.registry.files.cat_file(self.registry.path("bundles", version, REFERENCE_FILE))
            else:
                content = (self._bundle / REFERENCE_FILE).read_bytes()
            return msgspec.json.decode(content, type=PublishedReference)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.warning("%s of %s: %s", REFERENCE_FILE, version, error)
            return None


class ModelsThread(threading.Thread):
    """Looks at the models until `stop`."""

    def __init__(self, models: ModelPanel):
        super().__init__(name="models", daemon=True)
        self._models = models
        self._enough = threading.Event()

    def run(self) -> None:
        while not self._enough.is_set():
            self._models.look()
            self._enough.wait(LOOK_SECONDS)

    def stop(self) -> None:
        self._enough.set()
        self.join()


def serving(rollout: Rollout) -> list[dict]:
    """The arms with their shares of the users who are eligible, the shadows with none."""
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
