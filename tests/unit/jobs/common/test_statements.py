"""Which jobs have each other's state, by the ids of their operators; tests/flink restores a job."""

from unittest.mock import MagicMock

import pytest

from jobs.common.settings import load_settings, outcome_settings
from jobs.common.statements import build_job
from jobs.measure_outcomes import measure_outcomes
from tools.paths import CONF
from udfs.measurement.labels import Label

VIEW, INSERTION = "CREATE VIEW a AS SELECT SUM(b) FROM c", "INSERT INTO d SELECT * FROM a"


def options_of(tables: MagicMock) -> dict[str, str]:
    return dict(call.args for call in tables.get_config().set.call_args_list)


def ids(views, insertions, *functions) -> str:
    tables = MagicMock()
    build_job(tables, views, insertions, *functions)
    options = options_of(tables)
    assert options["table.exec.uid.generation"] == "ALWAYS"
    return options["table.exec.uid.format"]


def test_a_job_has_the_state_of_the_same_statements_and_functions_only():
    own = ids([VIEW], [INSERTION], ("purchase", 1))
    assert own.startswith("<id>_<transformation>_")
    assert ids([VIEW.replace(" FROM", "\n    FROM")], [INSERTION], ("purchase", 1)) == own
    others = [
        ids([VIEW.replace("b", "e")], [INSERTION], ("purchase", 1)),
        ids([VIEW], [INSERTION.replace("*", "1")], ("purchase", 1)),
        ids([VIEW], [INSERTION], ("purchase", 2)),
    ]
    assert len({own, *others}) == 4


def ids_for(label: Label) -> str:
    tables = MagicMock()
    measure_outcomes(tables, outcome_settings(load_settings(CONF, (), {})), label)
    return options_of(tables)["table.exec.uid.format"]


@pytest.mark.parametrize(
    ("changed", "is_the_same"),
    [
        ({"events": ("purchase", "begin_checkout"), "horizon": "1800 s"}, True),
        ({"events": ("begin_checkout", "add_to_cart")}, False),  # in no SQL: a Python function reads the events
        ({"horizon": "31 min"}, False),
    ],
)
def test_outcomes_go_on_with_the_state_of_the_same_label_however_it_is_written(changed, is_the_same):
    label = {"events": ("begin_checkout", "purchase"), "rows": ("page_view",), "horizon": "30 min"}
    assert (ids_for(Label(**label)) == ids_for(Label(**label | changed))) == is_the_same
