"""SQL functions that decode clicks and profiles, shared by the jobs that read them."""

from pyflink.table import TableEnvironment

from jobs.common.settings import Settings, click_topic
from udfs.flink.decode import DecodeClicks, DecodeProfiles


def register_decoders(tables: TableEnvironment, settings: Settings) -> None:
    """Register `decode_clicks` and `decode_profiles`, with the limits in the settings."""
    functions = {
        "decode_clicks": DecodeClicks(click_topic(settings)),
        "decode_profiles": DecodeProfiles(settings.decode.max_record_bytes),
    }
    for name, function in functions.items():
        tables.create_temporary_system_function(name, function.as_udf())
