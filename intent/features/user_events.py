"""The recorded events of one user, and which of them a time is about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from intent.features.errors import NoEventError
from training.data.dataset import Clicks, Dataset, ProfileUpdates
from udfs.contracts.outputs import Score, iso_time
from udfs.mapping.topic import ClickTopic
from udfs.population.stored_tables import StoredTables

#: Where an event is recorded: a partition and an offset, or a file and the number of a record in it.
Place = Mapping[str, int | str]


@dataclass(frozen=True)
class JobRules:
    """What a job makes of recorded events; by default, with the settings of conf/base.yaml."""

    topic: ClickTopic = ClickTopic()
    history_length: int = 64
    duplicates_within_ms: int = 3_600_000
    follow_logins: bool = False
    population: StoredTables | None = None


@dataclass(frozen=True)
class UserEvents:
    """Accepted clicks in order of arrival, the user's own among them, and profiles."""

    clicks: Clicks
    updates: ProfileUpdates
    names: Mapping[int, str]  # of the user's own events as sent, by position
    places: Mapping[int, Place]  # likewise
    scores: Sequence[Score] = ()  # by the job
    has_newest_profile_only: bool = False  # and none of those before it
    cautions: Sequence[str] = ()  # why values may differ from the job's


def newest_row(dataset: Dataset, user_id: str, until_ms: int | None) -> int:
    """The row of the user's newest event, of those not later than a time if one is given. Raises NoEventError.

    Of several events at the same time, it is the last to arrive.
    """
    own = np.flatnonzero((dataset.user == dataset.user_ids.index(user_id)) & ~dataset.is_history)
    times = dataset.records["time_ms"][own]
    in_time = times <= (times.max() if until_ms is None else until_ms)
    if not in_time.any():
        raise NoEventError(
            f"--at {iso_time(until_ms)}: the first event of user {user_id} is at {iso_time(int(times.min()))}; give a "
            "later time, or leave out --at for the newest event"
        )
    return int(own[in_time & (times == times[in_time].max())][-1])
