"""Reading of what profiles say of the users of an experiment."""

from pathlib import Path

import pandas as pd

from training.data.archive import find_parts, read_part
from training.data.dataset import read_profile_batch
from training.data.rows import SourceError
from udfs.contracts.profiles import country_of


def read_countries(path: Path) -> pd.DataFrame:
    """The countries in an archive or files of profiles, in order: user_id, since_ms and country, None if unknown.

    Raises SourceError, also if no profile in them is accepted.
    """
    batches, told = [], []
    for part in find_parts(path):
        for batch in read_part(part):
            updates = read_profile_batch(batch.keys, batch.payloads, batch.arrival_ms)
            told += updates.examples
            codes = updates.profiles["country"].tolist()
            known = [country_of(code) if code else None for code in codes]
            batches.append(
                pd.DataFrame({"user_id": updates.user_ids, "since_ms": updates.updated_ms, "country": known})
            )
    if not any(map(len, batches)):
        raise SourceError(f"{path}: no profile in it{f' is accepted: {told[0]}' if told else ''}")
    return pd.concat(batches, ignore_index=True)
