"""The serving models of a worker: first those that the job was submitted with, then those of the registry."""

from dataclasses import dataclass

from udfs.contracts.event_layout import STANDARD_LAYOUT, EventLayout
from udfs.models.bundle import Bundle, BundleError, check_functions, check_layout
from udfs.models.signatures import PublicKey
from udfs.rollout.plan import Rollout
from udfs.rollout.registry import Registry
from udfs.serving.deployment import Deployer, Deployment, Options
from udfs.serving.poller import Poller

#: The number of the entry where there is no ledger.
NO_ENTRY = 0


@dataclass(frozen=True)
class Serving:
    """The models that a job is submitted with: plain data, which is sent to the workers."""

    rollout: Rollout
    bundles: dict[str, Bundle]  # by version, all that the rollout names
    options: Options
    number: int = NO_ENTRY  # of the ledger's entry
    registry: str | None = None  # to poll; without one, the models do not change
    poll_s: float = 10.0
    fallback: str | None = None  # the version that stands in for remote models, one of the bundles
    layout: EventLayout = STANDARD_LAYOUT  # of the events that the job keeps
    trusted_keys: tuple[PublicKey, ...] = ()  # of which one must have signed each bundle of the registry; none: no need


def serving_bundle(bundle: Bundle, options: Options, layout: EventLayout = STANDARD_LAYOUT) -> Serving:
    """Serve one model to all users. Raises BundleError for a remote model, which would have no fallback."""
    if bundle.manifest.is_remote:
        raise BundleError(f"{bundle.manifest.version}: a remote model needs a registry, with a local one to stand in")
    check_layout(bundle, layout)
    check_functions(bundle)
    version = bundle.manifest.version
    rollout = Rollout(salt="none", champion=version)
    return Serving(rollout, {version: bundle}, options, layout=layout)


def serving_registry(
    uri: str,
    history_length: int,
    options: Options,
    poll_s: float,
    layout: EventLayout = STANDARD_LAYOUT,
    trusted_keys: tuple[PublicKey, ...] = (),
) -> Serving:
    """Serve the models of a registry's current ledger entry. Raises RegistryError and BundleError."""
    registry = Registry(uri, trusted_keys)
    number, rollout = registry.rollout()
    bundles = {version: registry.bundle(version, history_length) for version in rollout.versions}
    fallback = None
    if any(bundle.manifest.is_remote for bundle in bundles.values()):
        fallback = registry.local_champion()
    if fallback is not None:
        bundles[fallback] = registry.bundle(fallback, history_length)
    for bundle in bundles.values():
        check_layout(bundle, layout)
        check_functions(bundle)
    return Serving(rollout, bundles, options, number, uri, poll_s, fallback, layout, trusted_keys)


def follow(serving: Serving) -> Poller[Rollout, Deployment]:
    """Load the models into a poller; with a registry, poll it at once and then regularly."""
    history_length = serving.bundles[serving.rollout.champion].manifest.history_length
    registry = None if serving.registry is None else Registry(serving.registry, serving.trusted_keys)

    def find_bundle(version: str) -> Bundle:
        known = serving.bundles.get(version)
        return registry.bundle(version, history_length) if known is None else known

    def find_fallback(rollout: Rollout) -> str | None:
        return serving.fallback if rollout == serving.rollout else registry.local_champion()

    deploy = Deployer(find_bundle, find_fallback, serving.options, serving.layout)
    current = deploy(serving.rollout, must_answer=False)
    arguments = deploy, current, serving.number, serving.poll_s, Deployment.specialise
    if registry is None:
        unchanged = serving.number, serving.rollout
        poller = Poller(lambda: unchanged, *arguments)
    else:
        poller = Poller(registry.rollout, *arguments)
        poller.poll_once()
    poller.start()
    return poller
