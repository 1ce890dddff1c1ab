"""What serves in a worker from its start on: what the job was submitted with, and then what the registry says."""

from dataclasses import dataclass

from udfs.models.bundle import Bundle, BundleError
from udfs.rollout.plan import Rollout
from udfs.rollout.registry import Registry
from udfs.serving.deployment import Deployer, Deployment, Options
from udfs.serving.poller import Follower

#: The number of what serves where there is no ledger.
NO_ENTRY = 0


@dataclass(frozen=True)
class Serving:
    """What a job is submitted with: plain data that travels to the workers."""

    rollout: Rollout
    bundles: dict[str, Bundle]  # by version, all that the rollout names
    options: Options
    number: int = NO_ENTRY  # of the ledger's entry
    registry: str | None = None  # to follow; without one nothing changes
    poll_s: float = 10.0
    fallback: str | None = None  # the version that stands in for remote models, one of the bundles


def serving_bundle(bundle: Bundle, options: Options) -> Serving:
    """One model for everybody. Raises BundleError for a remote one: nothing could stand in for it."""
    if bundle.manifest.is_remote:
        raise BundleError(f"{bundle.manifest.version}: a remote model needs a registry, with a local one to stand in")
    version = bundle.manifest.version
    return Serving(Rollout(salt="none", champion=version), {version: bundle}, options)


def serving_registry(uri: str, history_length: int, options: Options, poll_s: float) -> Serving:
    """What a registry's ledger says now. Raises RegistryError and BundleError."""
    registry = Registry(uri)
    number, rollout = registry.rollout()
    bundles = {version: registry.bundle(version, history_length) for version in rollout.versions}
    fallback = None
    if any(bundle.manifest.is_remote for bundle in bundles.values()):
        fallback = registry.local_champion()
    if fallback is not None:
        bundles[fallback] = registry.bundle(fallback, history_length)
    return Serving(rollout, bundles, options, number, uri, poll_s, fallback)


def follow(serving: Serving) -> Follower[Rollout, Deployment]:
    """A follower that serves already, and with a registry looks for what is newer, first of all now."""
    history_length = serving.bundles[serving.rollout.champion].manifest.history_length
    registry = None if serving.registry is None else Registry(serving.registry)

    def find_bundle(version: str) -> Bundle:
        known = serving.bundles.get(version)
        return registry.bundle(version, history_length) if known is None else known

    def find_fallback(rollout: Rollout) -> str | None:
        return serving.fallback if rollout == serving.rollout else registry.local_champion()

    deploy = Deployer(find_bundle, find_fallback, serving.options)
    current = deploy(serving.rollout, must_answer=False)
    if registry is None:
        return Follower(lambda: (serving.number, serving.rollout), deploy, current, serving.number, serving.poll_s)
    follower = Follower(registry.rollout, deploy, current, serving.number, serving.poll_s)
    follower.look_once()
    follower.start()
    return follower
