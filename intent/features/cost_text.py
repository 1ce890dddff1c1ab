"""The measured cost of features as a table."""

from collections.abc import Mapping

from intent.features.cost import Costs
from intent.features.tables import aligned
from udfs.features.declaration import Declaration


def cost_text(
    declaration: Declaration, costs: Costs, history_length: int, importance_shares: Mapping[str, float] | None = None
) -> str:
    """A line for each feature, the most expensive first, then the totals.

    `importance_shares` are of the features of a model, which come before the others.
    """
    shares = importance_shares or {}
    lines = [("name", "group", "µs per event", "importance")]
    for name, cost in sorted(costs.features.items(), key=lambda entry: (entry[0] not in shares, -entry[1])):
        share = f"{shares[name]:.1%}" if name in shares else ""
        lines.append((name, declaration[name].group, f"{cost:.2f}", share))
    with_tiles = " and the tiles" if declaration.layout.tiles else ""
    totals = [(f"a pass over {history_length} events{with_tiles}, without features", f"{costs.empty_pass:.2f}")]
    totals += [(f"{name}, with the pass", f"{cost:.2f}") for name, cost in costs.sets.items()]
    columns = 3 if importance_shares is None else 4
    return "\n".join(
        [
            aligned([line[:columns] for line in lines], right=[2, 3]),
            "",
            aligned(totals, right=[1]),
            "",
            "Measured on this machine, on made-up events. The cost of a feature is what it adds to a pass when it is",
            "computed alone. Features of the same kind share work, so together they take less than the sum.",
        ]
    )
