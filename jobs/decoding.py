"""The decode functions, as SQL knows them in every job that reads clicks or profiles."""

from pyflink.table import TableEnvironment
from pyflink.table.udf import udf

from jobs.settings import Settings
from udfs.durations import duration_ms
from udfs.events import ClickLimits
from udfs.flink_udfs import DECODED_CLICK, DECODED_PROFILE, DecodeClicks, DecodeProfiles


def register_decoders(tables: TableEnvironment, settings: Settings) -> None:
    """Make `decode_clicks` and `decode_profiles` known, with the bounds that the settings give."""
    decode = settings.decode
    limits = ClickLimits(decode.max_record_bytes, duration_ms(decode.max_behind), duration_ms(decode.max_ahead))
    functions = {
        "decode_clicks": (DecodeClicks(limits), DECODED_CLICK),
        "decode_profiles": (DecodeProfiles(decode.max_record_bytes), DECODED_PROFILE),
    }
    for name, (function, result) in functions.items():
        tables.create_temporary_system_function(name, udf(function, result_type=result, func_type="pandas"))
