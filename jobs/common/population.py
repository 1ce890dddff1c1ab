"""The population's tables that settings name."""

from jobs.common.settings import ConfigError, Settings, feature_declaration, population_layout
from udfs.config.durations import duration_ms
from udfs.contracts.event_layout import EventLayout
from udfs.population.store import PopulationError, TableStore
from udfs.population.stored_tables import StoredTables, newest_table
from udfs.population.tables import Table
from udfs.serving.population import Population


def find_population(settings: Settings) -> Population | None:
    """Where the tables are that fill columns of the declaration; None if it has no such columns. Raises ConfigError."""
    if not feature_declaration(settings).layout.population_columns:
        return None
    population_layout(settings)
    return Population(settings.population.dir, duration_ms(settings.population.poll) / 1000)


def newest_table_of(settings: Settings) -> Table | None:
    """The newest table that the score job would see; None if there is none, or the declaration needs none.

    Raises ConfigError, and PopulationError if the table can't be read, or can't fill the declaration's columns.
    """
    population = find_population(settings)
    if population is None:
        return None
    return newest_table(TableStore(population.dir), feature_declaration(settings).layout)


def stored_tables(settings: Settings, layout: EventLayout) -> StoredTables | None:
    """The tables that fill a layout's columns of the population; None if it has none, or they are nowhere.

    Raises ConfigError.
    """
    if not layout.population_columns:
        return None
    uri = settings.population.dir
    try:
        return None if uri is None else StoredTables(uri, layout)
    except PopulationError as error:
        raise ConfigError(f"key population.dir: {error}") from None
