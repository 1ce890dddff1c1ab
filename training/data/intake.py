"""What became of the rows of files: how many were mapped, left out or unfit, and which columns were never there."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

EXAMPLES_SHOWN = 5


@dataclass
class Intake:
    """Counts over the rows of one file or several."""

    rows: int = 0
    unfit: int = 0
    examples: list[str] = field(default_factory=list)  # the first unfit rows: where, column, value and reason
    ignored: Counter = field(default_factory=Counter)  # rows left out by the mapping, by column and value
    absent: Counter = field(default_factory=Counter)  # files without it, by file pattern's column
    files: int = 0

    def __iadd__(self, other: "Intake") -> "Intake":
        self.examples = (self.examples + other.examples)[:EXAMPLES_SHOWN]
        for name in ("rows", "unfit", "ignored", "absent", "files"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def add_unfit(self, place: str, reason: str) -> None:
        """Count an unfit row."""
        self.unfit += 1
        if len(self.examples) < EXAMPLES_SHOWN:
            self.examples.append(f"{place}: {reason}")

    def end_of_file(self, absent: Iterable[str], ignored: Counter) -> None:
        """Add what a file's rows had in common."""
        self.files += 1
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
            lines.append(f"{self.unfit} of {self.rows} rows do not fit the mapping and are no clicks, for example")
            lines += [f"  {example}" for example in self.examples]
        missing = [column for column, files in self.absent.items() if files == self.files]
        if missing and self.rows:
            one = len(missing) == 1
            lines.append(f"column{'' if one else 's'} {', '.join(missing)} {'was' if one else 'were'} in no row")
        if self.ignored:
            values = ", ".join(f"{column} {value!r}: {count}" for (column, value), count in self.ignored.most_common(5))
            lines.append(f"{self.ignored.total()} rows left out as the mapping says ({values})")
        return lines
