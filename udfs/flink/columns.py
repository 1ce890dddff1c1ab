"""Functions of columns, which Flink calls with Arrow batches in a process of their own."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
from pyflink.table import DataTypes
from pyflink.table.types import DataType, to_arrow_type
from pyflink.table.udf import FunctionContext, ScalarFunction, udf

#: Values of a column: a list of strings, bytes or None, or an array of numbers; of a timestamp its int64 milliseconds.
Column = Sequence | np.ndarray


def row_type(**fields: DataType) -> DataType:
    """The type of a row of named fields."""
    return DataTypes.ROW([DataTypes.FIELD(name, kind) for name, kind in fields.items()])


class ColumnFunction(ScalarFunction):
    """A function of columns of n values, whose result is columns of n values: a row of type `result` for each row."""

    result: DataType

    @abstractmethod
    def columns(self, *arguments: Column) -> Mapping[str, Column]:
        """The columns of the result, by the names of its fields in their order; NaN and None are null."""

    def metric_group(self, context: FunctionContext):
        """The metric group `intent`, the parent of all metrics of the functions."""
        return context.get_metric_group().add_group("intent")

    def as_udf(self):
        """The function as a PyFlink UDF, for a table environment."""
        return udf(self, result_type=self.result, func_type="pandas")

    def eval(self, *arguments: pd.Series) -> pd.Series:
        return _series_of_rows(self.result, self.columns(*map(_column_of_series, arguments)))


def _column_of_series(series: pd.Series) -> Column:
    if series.dtype.kind == "M":
        return series.to_numpy("datetime64[ms]").astype(np.int64)
    return series.tolist() if series.dtype == object else series.to_numpy()


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
    """A mask of nulls, of which there is none: nulls are in the fields of the rows."""
