"""Compute the features of a batch of events, with the compiled kernel."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Self

import numpy as np

from udfs.contracts.event_layout import EventLayout
from udfs.contracts.profiles import PROFILE
from udfs.features.code_generation import PASS
from udfs.features.declaration import Declaration
from udfs.features.declaration_file import STANDARD
from udfs.features.user_slots import UserSlots, is_event

if TYPE_CHECKING:
    from udfs.features.kernel import Kernel

_INT64 = np.dtype(np.int64)


@dataclass(frozen=True)
class _Compiled:
    """A kernel, and what to compute with it."""

    functions: ModuleType
    columns: np.ndarray  # int64[k], of the kernel's features
    needs: int

    @classmethod
    def of(cls, kernel: "Kernel", columns: Sequence[int]) -> Self:
        return cls(kernel.functions, np.array(columns, np.int64), kernel.needs_of(columns))


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
        columns = declaration.find(self.names)
        # Here and not above: commands that compute nothing must not wait for numba, nor for the kernel to compile.
        from udfs.features.kernel import build_kernel

        self._layout = layout or declaration.layout
        self.event = self._layout.dtype
        self._features = [declaration.features[column] for column in columns]
        kernel = build_kernel(declaration.features, self._layout)
        self._does_all = kernel.needs_of(columns) == kernel.needs_of(range(len(kernel.needs)))
        self._compiled = _Compiled.of(kernel, columns)

    @property
    def passes(self) -> bool:
        """Whether the features need a pass over the history."""
        return bool(self._compiled.needs & PASS)

    def pass_anyway(self) -> None:
        """Go over each history, whether the features need it or not: to measure what that takes."""
        self._compiled = replace(self._compiled, needs=self._compiled.needs | PASS)

    def specialise(self) -> None:
        """Compile a kernel for these features alone, which takes seconds, and use it from then on.

        It gives the same bits sooner. Meanwhile, another thread may compute with the kernel of the whole declaration.
        """
        if self._does_all or not self._features:
            return
        from udfs.features.kernel import build_kernel

        self._compiled = _Compiled.of(build_kernel(self._features, self._layout), range(len(self._features)))
        self._does_all = True

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
        compiled = self._compiled
        broken = compiled.functions.compute_rows(
            np.ascontiguousarray(records), starts, ends, lifetime_events, first_seen_ms, np.ascontiguousarray(profiles),
            self.history_length, compiled.needs, compiled.columns, matrix,
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
        compiled = self._compiled
        compiled.functions.append_rows(
            rows["kind"], rows["event"], rows["profile"], logins["assigned_by"], logins["events"],
            logins["first_seen_ms"], slots,
            *users.kernel_arguments, heads["profile"], heads["assigned_by"], users.tiles,
            self.history_length, duplicates_within_ms, compiled.needs, compiled.columns, matrix, scored,
        )  # fmt: skip
        return matrix[: np.count_nonzero(scored)], scored


def _check_array(name: str, array: np.ndarray, dtype: np.dtype, rows: int | None) -> None:
    if array.dtype != dtype:
        raise ValueError(f"{name} must have dtype {dtype} (got {array.dtype})")
    if array.ndim != 1 or rows is not None and len(array) != rows:
        raise ValueError(
            f"{name} must have {'one dimension' if rows is None else f'shape {(rows,)}'} (got {array.shape})"
        )
