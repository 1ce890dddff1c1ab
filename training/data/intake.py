"""What became of the rows of files: how many were mapped, left out or unfit, and which columns were never there."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

EXAMPLES_SHOWN = 5


def counted(count: int, one: str, many: str | None = None) -> str:
    """A number with the words for one of what it counts, or for several.

    >>> counted(1, "row"), counted(2_000, "row"), counted(2, "row is", "rows are")
    ('1 row', '2,000 rows', '2 rows are')
    """
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


@dataclass
class Intake:
    """Counts over the rows of one file or several."""

    rows: int = 0
    unfit: int = 0
    examples: list[str] = field(default_factory=list)  # the first unfit rows: where, column, value and reason
    ignored: Counter = field(default_factory=Counter)  # rows left out by the mapping, by column and value
    named: Counter = field(default_factory=Counter)  # files whose mapping names it, by column
    absent: Counter = field(default_factory=Counter)  # files of these in which no row has it

    def __iadd__(self, other: "Intake") -> "Intake":
        self.examples = (self.examples + other.examples)[:EXAMPLES_SHOWN]
        for name in ("rows", "unfit", "ignored", "named", "absent"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def add_unfit(self, place: str, reason: str) -> None:
        """Count an unfit row."""
        self.unfit += 1
        if len(self.examples) < EXAMPLES_SHOWN:
            self.examples.append(f"{place}: {reason}")

    def end_of_file(self, named: Iterable[str], absent: Iterable[str], ignored: Counter) -> None:
        """Add what a file's rows had in common."""
        self.named.update(list(named))
        self.absent.update(list(absent))
        self.ignored += ignored

    @property
    def mapped(self) -> int:
        """Rows that became click records."""
        return self.rows - self.unfit - self.ignored.total()

    def problems(self) -> list[str]:
        """One line per problem, and one for each of the first unfit rows."""
        lines = []
        if self.unfit:
            lines.append(f"{self.unfit} of {self.rows} rows do not fit the mapping and give no clicks, for example")
            lines += [f"  {example}" for example in self.examples]
        missing = [column for column, files in self.absent.items() if files == self.named[column]]
        if missing and self.mapped:
            one = len(missing) == 1
            lines.append(f"column{'' if one else 's'} {', '.join(missing)} {'was' if one else 'were'} in no row")
        if self.ignored:
            values = ", ".join(f"{column} {value!r}: {count}" for (column, value), count in self.ignored.most_common(5))
            lines.append(f"{counted(self.ignored.total(), 'row')} left out as the mapping says ({values})")
        return lines
