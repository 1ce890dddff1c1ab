"""The drift references of models, by the version in a score."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from udfs.config.reading import NOT_JSON
from udfs.config.text import one_line
from udfs.measurement.drift import REFERENCE_FILE, Reference
from udfs.models.bundle import BundleError
from udfs.models.signatures import PublicKey
from udfs.rollout.registry import Registry, RegistryError

log = logging.getLogger(__name__)


def decode_reference(content: bytes, origin: str) -> Reference:
    """Decode a reference; what one of an earlier release does not watch is logged.

    Raises BundleError, naming the file, if it is invalid or in another format.
    """
    try:
        reference = msgspec.json.decode(content, type=Reference)
    except NOT_JSON as error:
        raise BundleError(
            f"{origin}/{REFERENCE_FILE}: not a valid reference: {one_line(error)}: train again"
        ) from error
    if any(known.edges and not known.means for known in reference.features.values()):
        log.warning(
            "%s/%s is of an earlier release: the means of numbers and the shares of missing values are not watched, "
            "only the index is: train again",
            origin,
            REFERENCE_FILE,
        )
    return reference


class References:
    """Known references, and those of a registry, which are read on first use.

    A reference that can't be read is logged, and retried after `retry_s` seconds at the earliest.
    """

    def __init__(
        self,
        known: Mapping[str, Reference],
        registry: str | None,
        retry_s: float,
        clock: Callable[[], float] = time.monotonic,
        trusted_keys: Sequence[PublicKey] = (),
    ):
        self._known = dict(known)
        self._registry = None if registry is None else Registry(registry, trusted_keys)
        self._retry_s = retry_s
        self._clock = clock
        self._retry_at: dict[str, float] = {}

    def find(self, version: str) -> Reference | None:
        """The reference of a version; None when it can't be read."""
        if version not in self._known and self._clock() >= self._retry_at.get(version, 0.0):
            try:
                self._known[version] = self.read(version)
            except (BundleError, RegistryError) as error:
                log.warning("no drift of model %s: %s", version, error)
                self._retry_at[version] = self._clock() + self._retry_s
        return self._known.get(version)

    def read(self, version: str) -> Reference:
        """The reference of a version in the registry. Raises BundleError and RegistryError."""
        if self._registry is None:
            raise BundleError(f"{version}: is not the version of model.bundle, and there is no registry to look in")
        content = self._registry.file(version, REFERENCE_FILE)
        return decode_reference(content, f"{self._registry.uri}/bundles/{version}")
