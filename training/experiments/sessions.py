"""Reading of session records, from files or from the topic `sessions`."""

import gzip
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec
import pandas as pd
import pyarrow.parquet as pq

from training.data.rows import SourceError, reading
from udfs.contracts.outputs import Session
from udfs.kafka.reading import ReadTopic, read_topic

ENDINGS = (".jsonl", ".jsonl.gz", ".parquet")


def read_sessions(path: Path) -> pd.DataFrame:
    """Read the session records of a file, or of all files under a directory: .jsonl, .jsonl.gz or .parquet.

    Raises SourceError naming file, line, rule and value.
    """
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    files = [file for file in files if file.name.endswith(ENDINGS)]
    if not files or not path.exists():
        raise SourceError(f"{path}: no {', '.join(ENDINGS)} file there")
    rows: list[Session] = []
    for file in files:
        with reading(file):
            rows += _parquet(file) if file.suffix == ".parquet" else _lines(file)
    return _frame(rows)


def read_topic_sessions(
    properties: Mapping[str, object], topic: str, since: datetime | None = None, read: ReadTopic = read_topic
) -> pd.DataFrame:
    """Read the session records of a topic, optionally only those with a Kafka timestamp since a time.

    `properties` are Kafka client properties. Raises SourceError naming topic, record, rule and value, and
    KafkaClientError for a topic that can't be read.
    """
    since_ms = None if since is None else int(since.timestamp() * 1000)
    return _frame(_json(read(properties, topic, since_ms), f"topic {topic}: record"))


def _lines(file: Path) -> list[Session]:
    content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    return _json(content.splitlines(), f"{file}: line")


def _json(lines: Iterable[bytes], origin: str) -> list[Session]:
    decode, rows = msgspec.json.Decoder(Session).decode, []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(decode(line))
        except msgspec.DecodeError as error:
            raise SourceError(f"{origin} {number}: {error}") from None
    return rows


def _parquet(file: Path) -> list[Session]:
    try:
        return msgspec.convert(pq.read_table(file).to_pylist(), list[Session])
    except msgspec.ValidationError as error:
        raise SourceError(f"{file}: {error}") from None


def _frame(rows: list[Session]) -> pd.DataFrame:
    return pd.DataFrame(map(msgspec.structs.asdict, rows), columns=Session.__struct_fields__)
