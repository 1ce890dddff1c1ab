"""The fuzz targets by name. What a target needs is imported when it is made."""

from importlib import import_module

from tools.fuzz.target import Target

#: The module of each target, and the function in it that makes the target.
TARGETS = {
    "clicks": ("clicks", "json_clicks"),
    "clicks-own": ("clicks", "own_columns"),
    "clicks-avro": ("clicks", "avro_clicks"),
    "clicks-protobuf": ("clicks", "protobuf_clicks"),
    "clicks-registry": ("clicks", "framed_clicks"),
    "clicks-mapped": ("clicks", "mapped_clicks"),
    "profiles": ("profiles", "profiles"),
    "settings": ("files", "settings"),
    "training": ("files", "training"),
    "retraining": ("files", "retraining"),
    "rollouts": ("files", "rollouts"),
    "kpis": ("files", "kpis"),
    "labels": ("files", "labels"),
    "declarations": ("files", "declarations"),
    "mappings": ("files", "mappings"),
    "expressions": ("files", "expressions"),
    "rules": ("files", "rules"),
    "avro-schemas": ("files", "avro_schemas"),
    "ledger": ("ledger", "ledger"),
    "bundles": ("bundles", "bundles"),
    "trees": ("bundles", "trees"),
    "grus": ("bundles", "grus"),
    "references": ("references", "references"),
    "remote-answers": ("remote", "answers"),
    "worker": ("worker", "protocol"),
    "worker-scores": ("worker", "scores"),
    "dashboard-requests": ("dashboard", "requests"),
    "dashboard-records": ("dashboard", "records"),
}


def make_target(name: str) -> Target:
    """The target of a name of TARGETS."""
    module, function = TARGETS[name]
    return getattr(import_module(f"{__name__}.{module}"), function)()
