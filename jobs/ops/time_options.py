"""Time options of commands: --since 10 min, --until 2026-11-24T12:00."""

from datetime import UTC, datetime

import msgspec

from jobs.common.settings import ConfigError
from udfs.config.durations import Duration, duration_ms, moment_ms


def time_ms(text: str, option: str, now_ms: int) -> int:
    """Milliseconds since 1970 of a duration before now, or of an ISO 8601 time, in UTC unless it has another zone.

    Earlier times are 1970, the earliest that Kafka takes.

    >>> time_ms("10 min", "--since", 1_000_000)
    400000
    """
    try:
        return max(0, now_ms - duration_ms(msgspec.convert(text, Duration)))
    except msgspec.ValidationError:
        pass  # no duration
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{option} {text}: expected a duration such as 10 min, or a time such as 2026-11-24T12:00"
        ) from None
    return max(0, moment_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC)))
