"""A worker follows what is published: it reads each new table, and a damaged one changes nothing."""

import numpy as np
import pytest

from tests.support.population_events import LAYOUT, MINUTE, Did, records_of
from tests.unit.udfs.population.test_stored_tables import write
from udfs.population.store import PopulationError
from udfs.serving.population import Population, PopulationColumns


def seen(columns: PopulationColumns, minute: int) -> float:
    """What an event sees that arrives at this minute."""
    (event,) = columns.fill([records_of([Did("ada", 0, 1, "scroll")]).tobytes()], ["ada"], [minute * MINUTE])
    return np.frombuffer(event, LAYOUT.dtype)["own_events"].item()


@pytest.fixture
def columns(tmp_path):
    write(tmp_path, 10, 5)
    columns = PopulationColumns(Population(str(tmp_path), 60), LAYOUT, clock=lambda: 25 * 60.0)
    columns.poll_once()
    return columns


def test_a_new_table_is_seen_after_a_poll(columns, tmp_path):
    assert columns.age_s == 15 * 60
    write(tmp_path, 20, 7)
    assert seen(columns, 22) == pytest.approx(5, rel=0.1)  # decayed
    columns.poll_once()
    assert seen(columns, 22) == 7
    assert seen(columns, 21) == 5
    assert (columns.age_s, columns.refused) == (5 * 60, 0)


def test_a_new_table_that_is_damaged_changes_nothing(columns, tmp_path, caplog):
    (tmp_path / f"{20 * MINUTE:014d}.npz").write_bytes(b"half a tab")
    columns.poll_once()
    assert seen(columns, 12) == 5
    assert (columns.age_s, columns.refused) == (15 * 60, 1)
    assert "refused, the table of 1970-01-01T00:10:00.000Z goes on serving" in caplog.text
    write(tmp_path, 20, 7)
    columns.poll_once()
    assert (seen(columns, 22), columns.refused) == (7, 1)


def test_a_directory_that_can_not_be_listed_fails_the_worker():
    with pytest.raises(PopulationError):
        PopulationColumns(Population("nosuch://bucket"), LAYOUT)
