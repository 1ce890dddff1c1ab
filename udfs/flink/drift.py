"""SQL functions of the drift job: vectors to cells, cells to counts, counts to a drift record."""

import zlib
from collections.abc import Callable

import numpy as np
from pyflink.table import DataTypes
from pyflink.table.udf import FunctionContext

from udfs.contracts.outputs import to_json
from udfs.flink.columns import Column, ColumnFunction, row_type
from udfs.measurement.drift import CELLS, NewestDrift, Thresholds, count_cells, window_drift
from udfs.rollout.drift_references import References


class FindCells(ColumnFunction):
    """Finds the cells of each scored vector and its score, a byte each; null, and counted, without a reference."""

    result = row_type(cells=DataTypes.BYTES())

    def __init__(self, references: Callable[[], References]):
        self._make_references = references

    def open(self, context: FunctionContext) -> None:
        self._references = self._make_references()
        self._refused = self.metric_group(context).counter("vectors_without_reference")

    def columns(self, versions: list, features: list, scores: np.ndarray) -> dict[str, Column]:
        cells = np.full(len(versions), None)
        version_of_row = np.array(versions, object)
        scores = np.asarray(scores, np.float32)
        for version in {version for version in versions if version is not None}:
            reference = self._references.find(version)
            if reference is None:
                continue
            width = len(reference.features)
            rows = [row for row in np.flatnonzero(version_of_row == version) if len(features[row] or b"") == 4 * width]
            vectors = np.frombuffer(b"".join(features[row] for row in rows), "<f4").reshape(-1, width)
            row_cells = reference.cells(vectors, scores[rows])
            cells[rows] = np.fromiter((row.tobytes() for row in row_cells), object, len(rows))
        refused = sum(row is None for row in cells)
        if refused:
            self._refused.inc(refused)
        return {"cells": cells}


class CountCells(ColumnFunction):
    """Counts an array of vectors' cells: int64[features + 1, CELLS]; null for no array.

    The counts are deflated: most are 0, and a window adds up one array for every 5 s.
    """

    result = row_type(counts=DataTypes.BYTES())

    def columns(self, arrays: list) -> dict[str, Column]:
        return {"counts": [None if cells is None else _count(cells) for cells in arrays]}


class JudgeDrift(ColumnFunction):
    """Makes the record of each window: JSON of a DriftWindow; null without counts or without a reference."""

    result = row_type(record=DataTypes.STRING())

    def __init__(self, references: Callable[[], References], thresholds: Thresholds):
        self._make_references = references
        self._thresholds = thresholds

    def open(self, context: FunctionContext) -> None:
        self._references = self._make_references()
        self._newest = NewestDrift()
        group = self.metric_group(context)
        group.gauge("drift_level", lambda: self._newest.level)
        group.gauge("drift_features_moved", lambda: self._newest.moved)

    def columns(
        self,
        starts: np.ndarray,
        ends: np.ndarray,
        versions: list,
        counts: list,
        labels: np.ndarray,
        positives: np.ndarray,
    ) -> dict[str, Column]:
        windows = zip(
            zip(map(int, starts), map(int, ends)), versions, counts, zip(map(int, labels), map(int, positives))
        )
        return {"record": [self._record(*window) for window in windows]}

    def _record(
        self, window: tuple[int, int], version: str, counts: list | None, labels: tuple[int, int]
    ) -> str | None:
        reference = None if counts is None else self._references.find(version)
        if reference is None:
            return None
        total = sum(np.frombuffer(zlib.decompress(part), np.int64) for part in counts).reshape(-1, CELLS)
        drift = window_drift(window, version, reference, total, labels, self._thresholds)
        self._newest.note(drift)
        return to_json(drift).decode()


def _count(cells: list) -> bytes:
    counts = count_cells(np.frombuffer(b"".join(cells), np.uint8).reshape(len(cells), -1))
    return zlib.compress(counts.tobytes(), level=1)
