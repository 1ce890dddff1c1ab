"""Compute the features of a batch of events, with the compiled kernel."""

from collections.abc import Sequence

import numpy as np

from udfs.contracts.event_layout import EventLayout
from udfs.contracts.profiles import PROFILE
from udfs.features.declaration import Declaration
from udfs.features.declaration_file import STANDARD
from udfs.features.user_slots import UserSlots, is_event

_INT64 = np.dtype(np.int64)


class FeatureComputer:
    """Computes the named features. Building the first one of a process compiles the kernel, which takes seconds."""

    def __init__(
        self,
        names: Sequence[str] | None = None,
        history_length: int = 64,
        declaration: Declaration = STANDARD,
        layout: EventLayout | None = None,
    ):
        """Select features of a declaration, by default all, to compute from events in a layout, by default its own.

        Raises ValueError for an unknown or repeated name, and a history length below 1.
        """
        if history_length < 1:
            raise ValueError(f"history_length must be at least 1 (got {history_length})")
        self.names = declaration.names if names is None else tuple(names)
        self.history_length = history_length
        self._columns = np.array(declaration.find(self.names), np.int64)
        # Here and not above: commands that compute nothing must not wait for numba, nor for the kernel to compile.
        from udfs.features.kernel import build_kernel

        layout = layout or declaration.layout
        self.event = layout.dtype
        kernel = build_kernel(declaration.features, layout)
        self._functions = kernel.functions
        self._needs = 0
        for column in self._columns:
            self._needs |= kernel.needs[column]

    def compute(
        self,
        records: np.ndarray,
        starts: np.ndarray,
        ends: np.ndarray,
        lifetime_events: np.ndarray,
        first_seen_ms: np.ndarray,
        profiles: np.ndarray,
    ) -> np.ndarray:
        """The feature matrix float32[n, len(names)] of n scored events.

        Row r sees the last `history_length` of records[starts[r]:ends[r]], in arrival order, and its tiles see all of
        them; the last one is the event being scored and its time is "now". Records stamped later than now are ignored,
        by all but `history_events`, `saturated` and tiles. Rows do not depend on each other, slices may overlap. Where
        there are tiles, rows of a user that follow each other are faster.

        records EVENT[m] in the layout, starts and ends int64[n], lifetime_events int64[n] (events ever
        seen of the user, this one included), first_seen_ms int64[n] (time of the user's first event), profiles
        PROFILE[n].
        Raises ValueError for another dtype or shape, and for a slice that is empty or not inside the records.
        """
        _check_array("records", records, self.event, None)
        _check_array("starts", starts, _INT64, None)
        rows = len(starts)
        _check_array("ends", ends, _INT64, rows)
        _check_array("lifetime_events", lifetime_events, _INT64, rows)
        _check_array("first_seen_ms", first_seen_ms, _INT64, rows)
        _check_array("profiles", profiles, PROFILE, rows)
        matrix = np.empty((rows, len(self.names)), np.float32)
        broken = self._functions.compute_rows(
            np.ascontiguousarray(records), starts, ends, lifetime_events, first_seen_ms, np.ascontiguousarray(profiles),
            self.history_length, self._needs, self._columns, matrix,
        )  # fmt: skip
        if broken >= 0:
            raise ValueError(
                f"row {broken} is records[{starts[broken]}:{ends[broken]}] of {len(records)}: "
                "expected a non-empty slice within the records"
            )
        return matrix

    def append(
        self, rows: np.ndarray, slots: np.ndarray, users: UserSlots, duplicates_within_ms: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Append USER_ROW[n] rows in order, row r to slot slots[r] (int32[n]) of the users.

        Returns the feature matrix float32[m, len(names)] of the m events to score among them, at the time of their
        arrival: the result of `compute` for the user's history then; and which rows those are, bool[n]. An event that
        `mark_repeated` would mark is none of them, and changes nothing.
        """
        heads, logins = users.heads, rows["login"]
        matrix = np.empty((np.count_nonzero(is_event(rows)), len(self.names)), np.float32)
        scored = np.empty(len(rows), bool)
        self._functions.append_rows(
            rows["kind"], rows["event"], rows["profile"], logins["assigned_by"], logins["events"],
            logins["first_seen_ms"], slots,
            *users.kernel_arguments, heads["profile"], heads["assigned_by"], users.tiles,
            self.history_length, duplicates_within_ms, self._needs, self._columns, matrix, scored,
        )  # fmt: skip
        return matrix[: np.count_nonzero(scored)], scored


def _check_array(name: str, array: np.ndarray, dtype: np.dtype, rows: int | None) -> None:
    if array.dtype != dtype:
        raise ValueError(f"{name} must have dtype {dtype} (got {array.dtype})")
    if array.ndim != 1 or rows is not None and len(array) != rows:
        raise ValueError(
            f"{name} must have {'one dimension' if rows is None else f'shape {(rows,)}'} (got {array.shape})"
        )
