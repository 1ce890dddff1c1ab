"""Functions of the experiment job: sessions to changes of a user's cells, and changes to verdicts."""

import logging
from collections.abc import Callable, Iterator, Mapping

import msgspec
import numpy as np
from pyflink.common import Row, Types
from pyflink.common.time import Time
from pyflink.datastream import KeyedProcessFunction, RuntimeContext
from pyflink.datastream.state import StateTtlConfig, ValueStateDescriptor

from udfs.contracts.outputs import ExperimentResult
from udfs.contracts.sql_types import sql_types
from udfs.measurement.cell_changes import (
    CountedSession,
    apply_change,
    count_session,
    decode_change,
    decode_periods,
    encode_change,
    encode_periods,
)
from udfs.measurement.cell_sums import CellSums, Columns
from udfs.measurement.experiment import judge
from udfs.measurement.experiment_records import result_records
from udfs.measurement.kpis import Kpi, terms_of
from udfs.rollout.known_experiments import ExperimentSource

log = logging.getLogger(__name__)

_TYPES = {"BIGINT": Types.LONG, "DOUBLE": Types.DOUBLE, "STRING": Types.STRING, "BOOLEAN": Types.BOOLEAN}
_RESULT_FIELDS = sql_types(ExperimentResult)

#: What UserCells emits: the key of an experiment, and a change of a user's cells in it.
CHANGE_TYPE = Types.ROW_NAMED(["experiment", "change"], [Types.STRING(), Types.PRIMITIVE_ARRAY(Types.BYTE())])
#: What Verdicts emits: the fields of an ExperimentResult.
RESULT_TYPE = Types.ROW_NAMED(list(_RESULT_FIELDS), [_TYPES[kind]() for kind in _RESULT_FIELDS.values()])


class UserCells(KeyedProcessFunction):
    """Emits what each session of a user changes in experiments: a row of CHANGE_TYPE for each of these.

    A session is a row of user, arm, version of the model, start in ms since 1970, and its contribution to each term.
    A user is forgotten `ttl_ms` after the last session arrived.
    """

    def __init__(self, source: Callable[[], ExperimentSource], ttl_ms: int):
        self._make_source = source
        self._ttl_ms = ttl_ms

    def open(self, runtime_context: RuntimeContext) -> None:
        self._source = self._make_source()
        # Flink's Python workers cache no state that must never be returned when it has expired.
        ttl = StateTtlConfig.new_builder(Time.milliseconds(self._ttl_ms)).return_expired_if_not_cleaned_up().build()
        descriptor = ValueStateDescriptor("periods", Types.PRIMITIVE_ARRAY(Types.BYTE()))
        descriptor.enable_time_to_live(ttl)
        self._periods = runtime_context.get_state(descriptor)

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> Iterator[Row]:
        _, arm, version, started_ms, *terms = value
        session = CountedSession(arm, version, started_ms, np.array(terms, np.float64))
        periods = decode_periods(self._periods.value())
        changes = count_session(periods, self._source.known(), session, Columns(len(terms)))
        self._periods.update(encode_periods(periods))
        for change in changes:
            yield Row(change.key, encode_change(change))


class Verdicts(KeyedProcessFunction):
    """Emits the verdict on an experiment at the end of each interval in which it changed: rows of RESULT_TYPE.

    Its input is rows of CHANGE_TYPE. `caps` limit the numerators of KPIs, as in `judge`. If the job restarts in such an
    interval, the verdict may wait for the next change.
    """

    def __init__(
        self,
        source: Callable[[], ExperimentSource],
        kpis: Mapping[str, Kpi],
        caps: Mapping[str, float],
        interval_ms: int,
    ):
        self._make_source = source
        self._kpis = dict(kpis)
        self._caps = dict(caps)
        self._interval_ms = interval_ms
        self._width = Columns(len(terms_of(kpis, caps))).width

    def open(self, runtime_context: RuntimeContext) -> None:
        self._source = self._make_source()
        # Whether a verdict is due, and the sums: objects, which Flink's worker keeps as they are until a bundle ends.
        self._state = runtime_context.get_state(ValueStateDescriptor("sums", Types.PICKLED_BYTE_ARRAY()))
        # A checkpoint that ends a bundle has the bundle's state, but not always its timers: Flink 2.2 registers those
        # after the bundle, from the task's mailbox. So a timer counts only if this worker has set it itself.
        self._timed: set[str] = set()

    def process_element(self, value: Row, ctx: KeyedProcessFunction.Context) -> None:
        if ctx.get_current_key() not in self._timed:
            self._set_timer(ctx)
        _, sums = self._sums()
        apply_change(sums, *decode_change(value[1]))
        self._state.update((True, sums.products))

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Iterator[Row]:
        key = ctx.get_current_key()
        self._timed.discard(key)
        is_due, sums = self._sums()
        if not is_due:  # another timer, from before a restart, was first
            return
        experiment = self._source.refresh().find(key)
        last_cell = max((cell for _, cell in sums.products), default=0)
        if experiment is None or last_cell >= 2 * len(experiment.stretches):
            log.warning("%s: no verdict, as the ledger that can be read is older than its sessions", key)
            self._set_timer(ctx)
            return
        self._state.update((False, sums.products))
        for record in result_records(judge(experiment, sums, self._kpis, self._caps), timestamp):
            yield Row(*msgspec.structs.astuple(record))

    def _set_timer(self, ctx: KeyedProcessFunction.Context) -> None:
        """Set a timer for the end of the current interval."""
        self._timed.add(ctx.get_current_key())
        now_ms = ctx.timer_service().current_processing_time()
        ctx.timer_service().register_processing_time_timer((now_ms // self._interval_ms + 1) * self._interval_ms)

    def _sums(self) -> tuple[bool, CellSums]:
        sums = CellSums(self._width)
        is_due, sums.products = self._state.value() or (False, {})
        return is_due, sums
