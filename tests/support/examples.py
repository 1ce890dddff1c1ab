"""How many examples the costlier property tests get."""

from hypothesis import settings


def examples(count: int) -> settings:
    """This many where others get 100, and a quarter of them in `make test-unit`, as of others."""
    return settings(max_examples=max(count * settings.default.max_examples // 100, 1))
