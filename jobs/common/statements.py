"""A job in SQL from its statements, which also name the state that it leaves in savepoints."""

from collections.abc import Sequence
from zlib import crc32

from pyflink.table import StatementSet, TableEnvironment


def build_job(
    tables: TableEnvironment, views: Sequence[str], insertions: Sequence[str], *functions: object
) -> StatementSet:
    """Declare views, and build the job of INSERT statements over them.

    `functions` is what Python functions compute, as far as the meaning of the state depends on it. Flink finds state by
    the ids of operators. By default, it makes them from the shape of the plan, and so would count on with the sums of
    one formula as those of another. These ids are also made from the statements and `functions`: Flink refuses a
    savepoint of others. What tables are declared with, such as lateness, may change.
    """
    for view in views:
        tables.execute_sql(view)
    statements = tables.create_statement_set()
    for insertion in insertions:
        statements.add_insert_sql(insertion)
    configuration = tables.get_config()
    configuration.set("table.exec.uid.generation", "ALWAYS")
    configuration.set("table.exec.uid.format", f"<id>_<transformation>_{_version(*views, *insertions, *functions)}")
    return statements


def _version(*meaning: object) -> str:
    """Equal for objects of equal text, whatever its white space."""
    words = " ".join(map(str, meaning)).split()
    return f"{crc32(' '.join(words).encode()):08x}"
