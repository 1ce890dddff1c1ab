"""Random feature files: what is computed of them is what the oracle computes, bit for bit."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, reduce
from operator import or_
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from tests.support.examples import examples
from tests.support.oracles.expressions import Case, Shop, bounds, evaluate, is_inexact
from tests.support.random_declarations import (
    MINUTE,
    RandomUser,
    feature_files,
    random_file,
    random_user,
    randoms,
    records_of,
)
from udfs.contracts.event_layout import EventLayout, OwnColumn, Tiles
from udfs.features import row_functions
from udfs.features.code_generation import generate
from udfs.features.computer import FeatureComputer
from udfs.features.declaration import Declaration, merged
from udfs.features.declaration_file import from_json
from udfs.features.user_slots import EVENT_ROW, UserSlots, user_row_type

FILES, PARTS = 1_000, 40
USERS, MOST_EVENTS = 6, 12
ULPS = 2  # that a trend or a decay may be off

COMPILED = (0, 1, 2, 3)  # seeds of declarations that numba compiles
MERGED = 3  # the one that is of two files
KEPT = 9  # events of a user there


def first_quick(quick: int, count: int) -> list:
    """The numbers below `count`, of which those from `quick` on are parameters of slow tests."""
    return [*range(quick), *(pytest.param(number, marks=pytest.mark.slow) for number in range(quick, count))]


class PlainKernel:
    """Generated code, run by Python instead of numba."""

    def __init__(self, declaration: Declaration, layout: EventLayout):
        self._code = generate([feature.value for feature in declaration.features], layout)
        self._layout = layout
        self.needs = self._code.needs
        self._names = plain_functions() | {"WINDOWS": self._code.windows}
        exec(compile(self._code.source, "<generated>", "exec"), self._names)

    def compute(self, user: RandomUser, kept: int, needs: int) -> np.ndarray:
        """The row of a user of whom the newest events are kept."""
        code, size, tiles = self._code, len(user.events), self._tiles(user)
        row = np.full(len(code.needs), np.inf, np.float32)
        with np.errstate(over="ignore"):  # of hashes
            self._names["compute_row"](
                row, user.events, max(size - kept, 0), size, user.lifetime_events, user.first_seen_ms, user.profile,
                tiles, 0, needs, 1, np.empty(size, np.int64), np.zeros((code.sets, 4 * MOST_EVENTS), np.uint64),
                np.empty((code.count_tables, code.table_length), np.int64),
                np.empty((code.sum_tables, code.table_length), np.float64),
                np.empty((code.time_tables, code.table_length), np.int64),
            )  # fmt: skip
        return row

    def _tiles(self, user: RandomUser) -> list[SimpleNamespace]:
        tiles = []
        if self._layout.tiles:
            nothing = np.zeros((), self._layout.tiles_type)
            tiles.append(SimpleNamespace(**{name: nothing[name].copy().view(Numbers) for name in nothing.dtype.names}))
            with np.errstate(over="ignore"):
                for event in user.events:
                    self._names["add_to_tiles"](tiles, 0, event)
        return tiles


class Numbers(np.ndarray):
    """An array that gives Python's numbers, so that sums of them have double precision as in compiled code."""

    def __getitem__(self, place):
        return super().__getitem__(place).item()


@cache
def plain_functions() -> dict[str, Any]:
    """What row_functions.py defines, without numba."""
    path = Path(row_functions.__file__)
    source = path.read_text().replace("from numba import njit", "njit = lambda **options: lambda function: function")
    names: dict[str, Any] = {}
    exec(compile(source, path, "exec"), names)
    return names


def declaration_of(content: dict[str, Any]) -> Declaration:
    return from_json(json.dumps(content).encode(), "random")


def case_of(shop: Shop, user: RandomUser, kept: int) -> Case:
    """What the oracle is given of a user of whom the newest events are kept."""
    events = [shop.event(event._asdict()) for event in user.events]
    return Case(shop, events, kept, user.lifetime_events, user.first_seen_ms, user.profile._asdict())


def assert_is_computed(computed: np.float32, text: str, case: Case) -> None:
    """That a number is an expression's value: its bits, or nearly, where two right computations may differ."""
    if not is_inexact(text):
        expected = evaluate(text, case)
        assert computed.tobytes() == expected.tobytes(), f"{text} is {computed!r}, not {expected!r}"
        return
    expected = bounds(text, case)
    if computed.tobytes() not in [number.tobytes() for number in expected]:
        numbers = [number for number in expected if not np.isnan(number)]
        assert numbers, f"{text} is {computed!r}, not {expected!r}"
        low, high = min(numbers), max(numbers)
        for _ in range(ULPS):
            low, high = np.nextafter(low, np.float32(-np.inf)), np.nextafter(high, np.float32(np.inf))
        assert low <= computed <= high, f"{text} is {computed!r}, not {expected!r}"


def widened(layout: EventLayout) -> EventLayout:
    """The layout of a job that keeps more than a declaration needs."""
    code = next(code for code in range(100, 256) if code not in layout.kinds.values())
    return EventLayout(
        (*layout.own_kinds, ("others_kind", code)),
        (OwnColumn("others_column", "number", "others_column", 2), *layout.own_columns),
        (Tiles("count(kind == others_kind)", MINUTE, 3), *(replace(t, count=t.count + 1) for t in layout.tiles)),
    )


def check(content: dict[str, Any], random: Random, layout: EventLayout | None = None) -> None:
    """That the features of a file are computed right for some users, and alone as among all.

    Their events are packed in a layout, by default that of the file.
    """
    declaration = declaration_of(content)
    layout = layout or declaration.layout
    kernel, shop = PlainKernel(declaration, layout), Shop.of_file(content)
    needs_of_all = reduce(or_, kernel.needs)
    for _ in range(USERS):
        user = random_user(random, layout, declaration.session_gap_ms, MOST_EVENTS)
        kept = random.choice([MOST_EVENTS, MOST_EVENTS, random.randint(1, MOST_EVENTS)])
        case = case_of(shop, user, kept)
        row = kernel.compute(user, kept, needs_of_all)
        for position, (feature, needs) in enumerate(zip(declaration.features, kernel.needs)):
            assert_is_computed(row[position], feature.text, case)
            if needs != needs_of_all:
                alone = kernel.compute(user, kept, needs)[position]
                assert alone.tobytes() == row[position].tobytes(), f"{feature.text} is {alone!r} alone"


@pytest.mark.parametrize("part", first_quick(1, PARTS))
def test_features_of_a_random_file_have_the_bits_of_the_oracle(part):
    for seed in range(part, FILES, PARTS):
        random = Random(seed)
        content = random_file(random, random.choice([1, 2, 4, 8, 12]))
        try:
            check(content, random)
        except Exception as error:
            error.add_note(f"of the file with seed {seed}: {json.dumps(content)}")
            raise


def test_what_float32_does_not_hold_is_its_largest_number():
    texts = [
        "sum(value)",
        "-sum(value)",
        "mean(value) * 1e6",
        "decay(value, half_life=1000d)",
        "1e39",
        "least(-1e39, 2)",
    ]
    content = {"features": {"g": {f"f{n}": {"value": text, "unit": "u", "doc": "d"} for n, text in enumerate(texts)}}}
    declaration, shop = declaration_of(content), Shop.of_file(content)
    kernel = PlainKernel(declaration, declaration.layout)
    user = random_user(Random(2), declaration.layout, declaration.session_gap_ms, MOST_EVENTS)
    user = replace(user, events=[event._replace(value=3e38) for event in user.events])
    row = kernel.compute(user, MOST_EVENTS, reduce(or_, kernel.needs))
    largest = np.finfo(np.float32).max
    assert row.tolist() == [largest, -largest, largest, largest, largest, -largest]
    assert [evaluate(text, case_of(shop, user, MOST_EVENTS)) for text in texts] == row.tolist()


def test_a_number_that_is_none_has_the_bits_of_a_missing_one():
    content = {"features": {"g": {"n": {"value": "1e200 * 1e200 * now.hour * 0", "unit": "u", "doc": "d"}}}}
    check(content, Random(1))


@pytest.mark.parametrize("seed", first_quick(10, 40))
def test_features_of_events_in_a_wider_layout_have_the_bits_of_the_oracle(seed):
    random = Random(seed)
    content = random_file(random, 8)
    check(content, random, widened(declaration_of(content).layout))


@given(content=feature_files, random=randoms)
@examples(30)
def test_features_of_any_file_have_the_bits_of_the_oracle(content, random):
    check(content, random)


@pytest.mark.slow
def test_features_with_more_totals_than_bits_have_the_bits_of_the_oracle():
    random = Random(1)
    content = random_file(random, 120)
    declaration = declaration_of(content)
    assert max(PlainKernel(declaration, declaration.layout).needs) >= 1 << 62
    check(content, random)


@dataclass(frozen=True)
class Compiled:
    """A declaration that is compiled, and of each of its features the shop whose file it is from."""

    declaration: Declaration
    shops: Sequence[Shop]

    @classmethod
    @cache
    def of_seed(cls, seed: int) -> "Compiled":
        if seed != MERGED:
            content = random_file(Random(seed), 25, depth=1)
            declaration = declaration_of(content)
            return cls(declaration, [Shop.of_file(content)] * len(declaration.features))
        contents = random_file(Random(seed), 12, 1), random_file(Random(seed + 1), 12, 1, with_own=False)
        first, second = map(declaration_of, contents)
        declaration, _ = merged(first, [second])
        shops = [Shop.of_file(content) for content in contents]
        return cls(
            declaration, [shops[position >= len(first.features)] for position in range(len(declaration.features))]
        )

    def random_user(self, random: Random, most_events: int) -> RandomUser:
        return random_user(random, self.declaration.layout, self.declaration.session_gap_ms, most_events)

    def assert_are_rows(self, matrix: np.ndarray, users: Sequence[RandomUser]) -> None:
        assert len(matrix) == len(users)
        for row, user in zip(matrix, users):
            cases = {id(shop): case_of(shop, user, KEPT) for shop in self.shops}
            for computed, feature, shop in zip(row, self.declaration.features, self.shops):
                assert_is_computed(computed, feature.text, cases[id(shop)])


@pytest.mark.parametrize("seed", COMPILED)
def test_compiled_features_have_the_bits_of_the_oracle(seed):
    compiled, random = Compiled.of_seed(seed), Random(seed)
    users = [compiled.random_user(random, random.choice([3, 12, 40])) for _ in range(100)]
    computer = FeatureComputer(history_length=KEPT, declaration=compiled.declaration)
    compiled.assert_are_rows(computer.compute(**records_of(users, compiled.declaration.layout)), users)


@pytest.mark.parametrize("seed", COMPILED)
def test_compiled_features_of_users_in_slots_have_the_bits_of_the_oracle(seed):
    compiled, random = Compiled.of_seed(seed), Random(seed)
    layout = compiled.declaration.layout
    users = [compiled.random_user(random, 30) for _ in range(5)]
    slots = UserSlots.empty(len(users), KEPT, layout)
    slots.heads["profile"] = [tuple(user.profile) for user in users]
    turns = [slot for slot, user in enumerate(users) for _ in user.events]
    random.shuffle(turns)
    rows, scored = np.zeros(len(turns), user_row_type(layout.dtype)), []
    for number, slot in enumerate(turns):
        seen = users[slot].events[: turns[: number + 1].count(slot)]
        first_seen_ms = min(event.time_ms for event in seen)
        scored.append(replace(users[slot], events=seen, lifetime_events=len(seen), first_seen_ms=first_seen_ms))
        rows[number]["kind"], rows[number]["event"] = EVENT_ROW, tuple(seen[-1])
    computer = FeatureComputer(history_length=KEPT, declaration=compiled.declaration)
    batches = np.array_split(np.arange(len(turns)), 4)
    matrices = [computer.append(rows[batch], np.array(turns, np.int32)[batch], slots, 0)[0] for batch in batches]
    compiled.assert_are_rows(np.concatenate(matrices), scored)
