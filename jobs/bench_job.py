"""The scoring job with sinks that throw everything away: what is measured is the job, not Kafka's writing.

Submitted like the real one, with the same arguments.
"""

from jobs.score_clicks import run
from jobs.settings import Settings
from jobs.tables import (
    DEAD_LETTERS_COLUMNS,
    FEATURE_LOG_COLUMNS,
    SCORES_COLUMNS,
    SHADOW_SCORES_COLUMNS,
    create_table,
    source_tables,
)

BLACKHOLE = {"connector": "blackhole"}


def tables(settings: Settings) -> list[str]:
    """Kafka's sources, and sinks that lead nowhere."""
    sinks = {
        "scores": SCORES_COLUMNS,
        "dead_letters": DEAD_LETTERS_COLUMNS,
        "feature_log": FEATURE_LOG_COLUMNS,
        "shadow_scores": SHADOW_SCORES_COLUMNS,
    }
    return source_tables(settings) + [create_table(name, columns, BLACKHOLE) for name, columns in sinks.items()]


if __name__ == "__main__":
    run(tables)
