"""Declarations of features, as plain data: udfs/features/declaration_file.py reads them from files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from udfs.contracts.event_layout import STANDARD_LAYOUT, EventLayout
from udfs.features.columns import PROFILE_NAMES, Column
from udfs.features.expressions import (
    Aggregate,
    EventCode,
    Now,
    Number,
    Operation,
    Profile,
    Value,
)

#: A pause longer than this ends a session, where a declaration says nothing else.
SESSION_GAP_MS = 1_800_000


@dataclass(frozen=True)
class Feature:
    """A column of the feature matrix: its definition as text and as a tree."""

    name: str
    group: str
    unit: str
    description: str
    text: str
    value: Value

    @property
    def is_attribute(self) -> bool:
        """Whether it says what the user or the device is, and not what the user does."""
        return _is_attribute(self.value)

    @property
    def is_event_code(self) -> bool:
        return isinstance(self.value, EventCode)

    @property
    def is_country(self) -> bool:
        return self.value == Profile("country")


@dataclass(frozen=True, eq=False)
class Declaration:
    """Features by name, and the events and the session gap that their expressions are about."""

    features: tuple[Feature, ...]
    layout: EventLayout = STANDARD_LAYOUT
    session_gap_ms: int = SESSION_GAP_MS

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.names)}

    def find(self, names: Sequence[str]) -> list[int]:
        """Where the named features are. Raises ValueError for an unknown or repeated name."""
        seen = set()
        for name in names:
            if name not in self._positions:
                raise ValueError(f"unknown feature {name!r}; `intent features list` lists all features")
            if name in seen:
                raise ValueError(f"feature {name!r} is listed twice; list it once")
            seen.add(name)
        return [self._positions[name] for name in names]

    def is_code(self, name: str) -> bool:
        """Whether a feature's values are codes, whose order has no meaning."""
        return self[name].is_country or self.vocabulary(name) is not None

    def vocabulary(self, name: str) -> dict[str, int] | None:
        """The codes that are the values of a feature, by their names; None for a feature that is a number."""
        match self[name].value:
            case Now(column=Column(name="kind")) | Aggregate(function="last", column=Column(name="kind")):
                return self.layout.kinds
            case Now(column=column) | Aggregate(function="last", column=Column() as column) if column.names:
                return {name: code for code, name in enumerate(column.names)}
            case Profile(field=field) if field in PROFILE_NAMES:
                return {name: code for code, name in enumerate(PROFILE_NAMES[field])}
        return None

    def __getitem__(self, name: str) -> Feature:
        return self.features[self._positions[name]]

    def __contains__(self, name: str) -> bool:
        return name in self._positions

    def __reduce__(self):  # without what is cached
        return Declaration, (self.features, self.layout, self.session_gap_ms)


def with_event_codes(declaration: Declaration, events: int) -> Declaration:
    """The declaration with features that are the codes of a user's last events, the oldest first, unless it has them.

    Raises ValueError where a feature of the declaration has the name of another one.
    """
    added = []
    for back in reversed(range(events)):
        name = f"event_code_{back}"
        of_it = "the scored event" if back == 0 else f"the event {back} before the scored one"
        feature = Feature(name, "event_codes", "code", f"code of {of_it}", f"event({back})", EventCode(back))
        if name not in declaration:
            added.append(feature)
        elif declaration[name].value != feature.value:
            raise ValueError(f"feature {name} must be {feature.text}, as sequence models have it: rename yours")
    return Declaration((*declaration.features, *added), declaration.layout, declaration.session_gap_ms)


def merged(first: Declaration, others: Sequence[Declaration]) -> tuple[Declaration, list[dict[str, str]]]:
    """A declaration with the features of all, and for each of the others, what its features are called there.

    A feature with the expression of an earlier one is that one; one with the name of another gets a number.
    """
    features = list(first.features)
    names = {feature.value: feature.name for feature in reversed(features)}
    taken = set(first.names)
    for other in others:
        for feature in other.features:
            if feature.value in names:
                continue
            name, number = feature.name, 1
            while name in taken:
                number += 1
                name = f"{feature.name}@{number}"
            taken.add(name)
            names[feature.value] = name
            features.append(replace(feature, name=name))
    found = [{feature.name: names[feature.value] for feature in other.features} for other in others]
    return Declaration(tuple(features), first.layout, first.session_gap_ms), found


def _is_attribute(value: Value) -> bool:
    if isinstance(value, Operation):
        return all(map(_is_attribute, value.parts))
    return isinstance(value, Number | Profile) or isinstance(value, Now) and value.column.name == "device"
