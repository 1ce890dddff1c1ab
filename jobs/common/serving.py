"""The models that the score job starts with, from its settings."""

from pathlib import Path

from jobs.common.settings import Settings, feature_declaration, registry_uri
from udfs.config.durations import duration_ms
from udfs.models.bundle import load_bundle
from udfs.serving.bootstrap import Serving, serving_bundle, serving_registry
from udfs.serving.deployment import Options


def find_serving(settings: Settings) -> Serving:
    """The models to serve: those of the registry's ledger, or else one bundle.

    Raises BundleError, RegistryError and ConfigError.
    """
    model, history_length = settings.model, settings.state.history_length
    options = Options(model.threshold, model.engine, model.threads, duration_ms(model.shadow_budget) / 1000)
    layout = feature_declaration(settings).layout
    if registry := registry_uri(settings):
        poll_s = duration_ms(model.poll) / 1000
        return serving_registry(registry, history_length, options, poll_s, layout, model.trusted_keys)
    return serving_bundle(load_bundle(Path(model.bundle), history_length, model.trusted_keys), options, layout)
