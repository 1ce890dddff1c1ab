"""Tables as aligned plain text, and the table of features."""

from collections.abc import Collection, Sequence

from udfs.features.declaration import Feature


def aligned(lines: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Rows of cells as lines. A column is as wide as its widest cell; those of `right` are aligned to the right.

    >>> print(aligned([("name", "cost"), ("a", "0.25"), ("bcdef", "12.5")], right=[1]))
    name   cost
    a      0.25
    bcdef  12.5
    """
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in lines
    )


def feature_table(features: Sequence[Feature], with_expressions: bool = False) -> str:
    """Features, a line each."""
    lines = [("name", "group", "unit", "description", "expression")]
    lines += [(feature.name, feature.group, feature.unit, feature.description, feature.text) for feature in features]
    return aligned(lines if with_expressions else [line[:-1] for line in lines])
