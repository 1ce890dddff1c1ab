"""Mutation of inputs: of bytes, and of the values in a text such as JSON or YAML."""

import re
from collections.abc import Callable, Sequence
from random import Random

#: What replaces a value in a text: numbers beyond any type, texts that are not Unicode, structures.
HOSTILE_VALUES = tuple(
    b"0 -0 -1 0.1 1e308 1e309 -1e309 1e-400 NaN -NaN Infinity -Infinity "
    b"127 128 255 256 65535 65536 2147483647 2147483648 "
    b"-2147483649 4294967296 9223372036854775807 9223372036854775808 -9223372036854775809 18446744073709551616 "
    b"1000000000000 1700000000000 1700000000 1700000000000000 99999999999999999999 1_000 0x1F 0o17 0b1 .5 5. +5 1:30 "
    b'true false null yes ~ [] {} [[]] [null] [{}] {"":null} {"a":{"a":{}}} "" "\\t" "\\u0000" "\\ud800" "\\udc80" '
    b'"\\udbff\\udfff" "\\ud83d\\ude00" "\xff" "\xed\xa0\x80" "\xf0\x9f\x98\x80" "\xc2\xa0" "\xe2\x80\xae" "nan" "inf" '
    b'"1e999" "-1" "1,5" "1.5" "$5" "2024-02-30" "2024-01-01T00:00:00Z" "0001-01-01T00:00:00+14:00" '
    b'"9999-12-31T23:59:59-12:00" 2024-02-30 2024-13-01T25:61:61Z "true" "null" '
    b'"[{}]" "{" "../../etc/passwd" "${HOME}" "${env:X}" "<script>alert(1)</script>" "\'" "%" "%Y" "%%%" "{{x}}" "{0}" '
    b"__class__ !!python/object:os.system &a *a".split(b" ")
    + [
        b'" "',
        b'"10 s"',
        b'"0 s"',
        b'"99999999999999999999 d"',
        b"1" + b"0" * 400,
        b"9" * 5_000,
        b"0." + b"0" * 400 + b"1",
        b'"' + b"x" * 129 + b'"',
        b'"' + "ü".encode() * 300 + b'"',
        b'"' + b"9" * 5_000 + b'"',
    ]
)
#: The same, of so many bytes that they take as long as many others.
HEAVY_VALUES = (
    b'"' + b"x" * 70_000 + b'"',
    b"[" * 600,
    b"[" * 600 + b"]" * 600,
    b'{"a":' * 600 + b"1" + b"}" * 600,
    b"[" * 20_000 + b"]" * 20_000,
    b'{"a":' * 2_000 + b"1" + b"}" * 2_000,
)
HEAVY_EVERY = 100
INTERESTING_BYTES = (0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x22, 0x5C, 0x0A, 0x7B, 0x5B, 0xC0, 0xED, 0xF4)
INTERESTING_WORDS = (0, 1, -1, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 1 << 20, 1 << 24)
#: How many inputs there are on average for one of HUGE bytes, which takes as long as thousands of others.
HUGE, HUGE_EVERY = 10_000_000, 20_000
LARGEST = 300_000  # bytes that an input of several mutations grows to

_VALUE = re.compile(
    rb'"(?:[^"\\]|\\.){0,4000}"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\b(?:true|false|null)\b|(?<=: )[^\s#]+'
)
_WORD = re.compile(rb"\w{2,40}")
_KEY = re.compile(rb'"\w+"\s*:')


class Mutator:
    """Makes inputs from a corpus, the same ones for the same seed."""

    def __init__(self, rng: Random, corpus: Sequence[bytes]):
        self._rng, self._corpus = rng, corpus
        self._words = sorted({word for entry in corpus for word in _WORD.findall(entry[:100_000])}) or [b"a"]
        self._kinds = (
            self._flip, self._set_byte, self._set_word, self._delete, self._repeat, self._truncate, self._splice,
            self._insert_word, self._insert_noise, self._swap_word, self._repeat_key, self._replace_value,
            self._replace_value, self._replace_value,
        )  # fmt: skip

    def mutate(self) -> bytes:
        """An input: one of the corpus with one or several mutations."""
        rng = self._rng
        data = rng.choice(self._corpus)
        if rng.randrange(HUGE_EVERY) == 0:
            return self._huge(data)
        while True:
            data = rng.choice(self._kinds)(data) if len(data) < LARGEST else self._truncate(data)
            if rng.random() < 0.5:
                return data

    def _span(self, data: bytes) -> tuple[int, int]:
        start = self._rng.randrange(len(data) + 1)
        return start, min(len(data), start + 1 + int(self._rng.expovariate(0.1)))

    def _flip(self, data: bytes) -> bytes:
        return self._put(data, lambda byte: byte ^ 1 << self._rng.randrange(8))

    def _set_byte(self, data: bytes) -> bytes:
        return self._put(data, lambda _: self._rng.choice(INTERESTING_BYTES))

    def _put(self, data: bytes, change: Callable[[int], int]) -> bytes:
        if not data:
            return data
        at = self._rng.randrange(len(data))
        return data[:at] + bytes((change(data[at]),)) + data[at + 1 :]

    def _set_word(self, data: bytes) -> bytes:
        """Put an integer of 2 to 8 bytes, of either byte order, over others."""
        size = self._rng.choice((2, 4, 8))
        number = self._rng.choice(INTERESTING_WORDS) % (1 << 8 * size)
        at = self._rng.randrange(len(data) + 1)
        return data[:at] + number.to_bytes(size, self._rng.choice(("little", "big"))) + data[at + size :]

    def _delete(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:start] + data[end:]

    def _repeat(self, data: bytes) -> bytes:
        start, end = self._span(data)
        return data[:start] + data[start:end] * self._rng.choice((2, 2, 3, 20, 300)) + data[end:]

    def _truncate(self, data: bytes) -> bytes:
        return data[: self._rng.randrange(len(data) + 1)]

    def _splice(self, data: bytes) -> bytes:
        other = self._rng.choice(self._corpus)
        return data[: self._rng.randrange(len(data) + 1)] + other[self._rng.randrange(len(other) + 1) :]

    def _insert_word(self, data: bytes) -> bytes:
        at = self._rng.randrange(len(data) + 1)
        return data[:at] + self._rng.choice(self._words) + data[at:]

    def _swap_word(self, data: bytes) -> bytes:
        return self._replace(data, _WORD, self._rng.choice(self._words))

    def _insert_noise(self, data: bytes) -> bytes:
        at = self._rng.randrange(len(data) + 1)
        return data[:at] + self._rng.randbytes(1 + int(self._rng.expovariate(0.2))) + data[at:]

    def _replace_value(self, data: bytes) -> bytes:
        values = HOSTILE_VALUES if self._rng.randrange(HEAVY_EVERY) else HEAVY_VALUES
        return self._replace(data, _VALUE, self._rng.choice(values))

    def _repeat_key(self, data: bytes) -> bytes:
        keys = _KEY.findall(data, 0, 20_000)
        at = data.find(b"{") + 1
        if not keys or not at:
            return self._replace_value(data)
        return data[:at] + self._rng.choice(keys) + self._rng.choice(HOSTILE_VALUES) + b"," + data[at:]

    def _huge(self, data: bytes) -> bytes:
        start, end = self._span(data)
        part = data[start:end] or b"x"
        return data[:start] + part * (HUGE // len(part)) + data[end:]

    def _replace(self, data: bytes, pattern: re.Pattern[bytes], value: bytes) -> bytes:
        """The data with one match of the pattern replaced: the next one from anywhere on, or else the first."""
        found = pattern.search(data, self._rng.randrange(len(data) + 1)) or pattern.search(data)
        return data + value if found is None else data[: found.start()] + value + data[found.end() :]
