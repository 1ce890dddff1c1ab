"""A list of hostile click records: for a running job, which has to give each a score or a dead letter with a reason."""

import json
from random import Random

from tools.fuzz.mutation import Mutator
from tools.fuzz.targets.clicks import JSON_CORPUS, NOW_MS, VALID_JSON

#: Above decode.max_record_bytes, below what Kafka takes: a record that is larger is no question to the job.
LARGEST_BYTES = 200_000


def hostile_clicks(count: int, seed: int, now_ms: int = NOW_MS) -> list[bytes]:
    """Mutated click records in JSON, of which a part is accepted; the same ones for the same arguments.

    `now_ms` is the time of the clicks that have a right one.
    """
    corpus = [record.replace(str(NOW_MS).encode(), str(now_ms).encode()) for record in JSON_CORPUS + 5 * VALID_JSON]
    corpus += [_deep(record) for record in ({"note": 0}, {"items": 0}, {"user_id": 0}, {"unfit_row": 0})]
    mutator = Mutator(Random(seed), corpus)
    return [mutator.mutate()[:LARGEST_BYTES] for _ in range(count)]


def _deep(record: dict) -> bytes:
    """A record with a value that is nested more deeply than parsers like."""
    return json.dumps(record).encode().replace(b"0", b"[" * 5_000 + b"]" * 5_000)
