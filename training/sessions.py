"""Records of topic `sessions`, read to be analysed."""

from pathlib import Path

import msgspec
import pandas as pd
import pyarrow.parquet as pq

from training.records import SourceError


class Session(msgspec.Struct):
    """A record of topic `sessions`, as far as experiments read it."""

    user_id: str
    arm: str | None
    started_at: int
    ended_at: int
    events: int
    pages: int
    view_promotions: int
    select_promotions: int
    add_to_carts: int
    begin_checkouts: int
    form_starts: int
    form_submits: int
    purchases: int
    revenue: float


def read_sessions(path: Path) -> pd.DataFrame:
    """The session records of a file, or of all files under a directory: JSON Lines (.jsonl) or Parquet (.parquet).

    Raises SourceError naming file, line, rule and value.
    """
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    files = [file for file in files if file.suffix in (".jsonl", ".parquet")]
    if not files or not path.exists():
        raise SourceError(f"{path}: no .jsonl or .parquet file there")
    rows: list[Session] = []
    for file in files:
        try:
            rows += _parquet_sessions(file) if file.suffix == ".parquet" else _json_sessions(file)
        except (OSError, msgspec.ValidationError) as error:
            raise SourceError(f"{file}: {error}") from None
    return pd.DataFrame(map(msgspec.structs.asdict, rows), columns=Session.__struct_fields__)


def _json_sessions(file: Path) -> list[Session]:
    decode, rows = msgspec.json.Decoder(Session).decode, []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            rows.append(decode(line))
        except msgspec.DecodeError as error:
            raise SourceError(f"{file}: line {number}: {error}") from None
    return rows


def _parquet_sessions(file: Path) -> list[Session]:
    return msgspec.convert(pq.read_table(file).to_pylist(), list[Session])
