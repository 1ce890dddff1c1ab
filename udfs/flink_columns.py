"""How Flink calls a function of columns: with Arrow batches, or with a row at a time.

In the profile `throughput` the function is in a process of its own and gets batches; in the profile `latency` it is in
the TaskManager itself (Flink's thread mode), which spares the way to another process, and gets rows.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from pyflink.common import Row
from pyflink.table import DataTypes
from pyflink.table.types import ArrayType, DataType, to_arrow_type
from pyflink.table.udf import FunctionContext, ScalarFunction, udf

from udfs.exposition import process_group

#: Values of a column: a list of strings, bytes or None, or an array of numbers; of a timestamp its int64 milliseconds.
Column = Sequence | np.ndarray

_EPOCH = datetime(1970, 1, 1)
_MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Profile:
    """How Flink runs the functions, and where they show their metrics in the profile `latency`: HOST:PORT or
    HOST:FIRST-LAST."""

    name: Literal["throughput", "latency"]
    metrics_endpoint: str


def row_type(**fields: DataType) -> DataType:
    """The type of a row of named fields."""
    return DataTypes.ROW([DataTypes.FIELD(name, kind) for name, kind in fields.items()])


class ColumnFunction(ScalarFunction):
    """A function of columns of n values, whose result is columns of n values: a row of type `result` for each row."""

    result: DataType

    def __init__(self, profile: Profile):
        self._profile = profile
        # Thread mode fails on an array that is null.
        self._fields = [(field.name, () if isinstance(field.data_type, ArrayType) else None) for field in self.result]

    @abstractmethod
    def columns(self, *arguments: Column) -> Mapping[str, Column]:
        """The columns of the result, by the names of its fields in their order; NaN and None are null."""

    def metric_group(self, context: FunctionContext):
        """The group `intent`, for metrics in Flink or, which thread mode has no way to, beside it."""
        of_flink = self._profile.name == "throughput"
        group = context.get_metric_group() if of_flink else process_group(self._profile.metrics_endpoint)
        return group.add_group("intent")

    def as_udf(self):
        """The function as a table environment takes it."""
        kind = "pandas" if self._profile.name == "throughput" else "general"
        return udf(self, result_type=self.result, func_type=kind)

    def eval(self, *arguments: Any) -> pd.Series | Row:
        if self._profile.name == "throughput":
            return _series_of_rows(self.result, self.columns(*map(_column_of_series, arguments)))
        return self.row(*arguments)

    def row(self, *arguments: Any) -> Row:
        """The result for one row; by default that of columns of one value, which takes 0.1 ms longer than the work."""
        columns = self.columns(*map(_column_of_value, arguments))
        return Row(*(_plain(columns[name][0], null) for name, null in self._fields))


def milliseconds(time: datetime) -> int:
    """Milliseconds since 1970 of a time that Flink hands over, in UTC."""
    return (time - _EPOCH) // _MILLISECOND


def _column_of_series(series: pd.Series) -> Column:
    if series.dtype.kind == "M":
        return series.to_numpy("datetime64[ms]").astype(np.int64)
    return series.tolist() if series.dtype == object else series.to_numpy()


def _column_of_value(value: Any) -> Column:
    if isinstance(value, datetime):
        return np.array([milliseconds(value)])
    return np.array([value]) if isinstance(value, int) else [value]


def _plain(value: Any, null: Any) -> Any:
    """A value as Python has it, which is all that thread mode takes; None and NaN as `null`."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return null if value is None or value != value else value


def _series_of_rows(kind: DataType, columns: Mapping[str, Column]) -> pd.Series:
    """A series of rows, backed by Arrow; None and NaN become null.

    A DataFrame would do, but PyFlink searches each of its columns for nulls and converts them one by one, which takes
    longer than decoding. It does the same to a series, unless that is Arrow's already and asks for no mask.
    """
    fields = list(to_arrow_type(kind))
    arrays = [pa.array(columns[field.name], field.type, from_pandas=True) for field in fields]
    series = pd.Series(pd.arrays.ArrowExtensionArray(pa.StructArray.from_arrays(arrays, fields=fields)))
    series.isnull = _no_mask
    return series


def _no_mask() -> None:
    """Nulls are in the fields of the rows."""
