"""LightGBM's text format, read strictly before LightGBM reads it.

LightGBM checks little of what it loads: text that breaks off, or trees whose nodes don't hold together, end the process
or never return a score. What `check_text` accepts is a whole model whose trees are trees.
"""

import math
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from udfs.models.xgboost_ubjson import DEEPEST_TREE

if TYPE_CHECKING:
    import lightgbm

OBJECTIVE = "binary sigmoid:1"  # a score is a probability

_HEADER = (
    "version",
    "num_class",
    "num_tree_per_iteration",
    "label_index",
    "max_feature_idx",
    "objective",
    "feature_names",
    "feature_infos",
    "tree_sizes",
)
_OPTIONAL = {"monotone_constraints"}
_NUMBER = re.compile(r"[-+.e\d]+", re.ASCII)  # Python reads more, such as 1_000
_FIXED = {"version": "v4", "num_class": "1", "num_tree_per_iteration": "1"}
_NODE_FIELDS = {
    "split_feature": int,
    "split_gain": float,
    "threshold": float,
    "decision_type": int,
    "left_child": int,
    "right_child": int,
    "internal_value": float,
    "internal_weight": float,
    "internal_count": int,
}
_LEAF_FIELDS = {"leaf_value": float, "leaf_weight": float, "leaf_count": int}
_TREE_FIELDS = ("num_leaves", "num_cat", *_NODE_FIELDS, *_LEAF_FIELDS, "is_linear", "shrinkage")
#: Bits of a decision: 2 says where a missing value goes; 8 says that NaN is one, without it NaN is a 0. The others are
#: categories (1) and zero as a missing value (4), which training does not make.
_DECISIONS = {0, 2, 8, 10}
_END = "end of trees\n"


def load_text(model: bytes) -> "lightgbm.Booster":
    """The booster of a model that `check_text` accepts."""
    import lightgbm  # here, so that a process that serves no such model goes without a second library and its threads

    text = model.decode()
    return lightgbm.Booster(model_str=text[: text.index(_END) + len(_END)])  # what follows is no part of the model


def check_text(model: bytes) -> tuple[tuple[str, ...], str]:
    """The names of the features and the objective.

    Raises ValueError, one line, unless it is a model of numeric splits whose margin is the sum of its trees.
    """
    text = model.decode()
    if _END not in text:
        raise ValueError(f"the line {_END.strip()!r} is missing" if text else "the file is empty")
    start, *trees = re.split("^(?=Tree=)", text[: text.index(_END)], flags=re.MULTILINE)
    header = _fields(start, "tree", _HEADER)
    for key, expected in _FIXED.items():
        if header[key] != expected:
            raise ValueError(f"{key} is {header[key]!r}, expected {expected!r}")
    names = tuple(header["feature_names"].split(" "))
    for key in ("feature_infos", "monotone_constraints"):
        if key in header and len(header[key].split(" ")) != len(names):
            raise ValueError(f"{key} and feature_names differ in length")
    if header["max_feature_idx"] != str(len(names) - 1) or header["label_index"] != "0":
        raise ValueError("max_feature_idx or label_index does not fit feature_names")
    if [len(tree) for tree in trees] != _numbers(header, "tree_sizes", int, len(trees)) or not trees:
        raise ValueError(f"tree_sizes does not match the {len(trees)} trees")
    for number, tree in enumerate(trees):
        try:
            _check_tree(_fields(tree, f"Tree={number}", _TREE_FIELDS), len(names))
        except ValueError as error:
            raise ValueError(f"tree {number}: {error}") from None
    return names, header["objective"]


def _check_tree(tree: Mapping[str, str], features: int) -> None:
    leaves = _numbers(tree, "num_leaves", int, 1)[0]
    nodes = leaves - 1
    if nodes < 0 or (tree["num_cat"], tree["is_linear"]) != ("0", "0"):
        raise ValueError("expected leaves, no categories and no linear leaves")
    _numbers(tree, "shrinkage", float, 1)
    columns = {key: _numbers(tree, key, kind, nodes) for key, kind in _NODE_FIELDS.items()}
    for key, kind in _LEAF_FIELDS.items():
        if nodes or key != "leaf_weight":  # LightGBM writes none where a tree is one leaf
            columns[key] = _numbers(tree, key, kind, leaves)
    if not all(0 <= feature < features for feature in columns["split_feature"]):
        raise ValueError(f"split_feature is not below {features}")
    if not _DECISIONS.issuperset(columns["decision_type"]):
        raise ValueError(f"decision_type must be one of {sorted(_DECISIONS)}")
    children = [*zip(columns["left_child"], columns["right_child"])]
    # Each leaf and each node but the root hangs below one node, which comes before it: so it is one tree.
    hanging = [*range(-leaves, 0), *range(1, nodes)] if nodes else []
    if sorted(child for pair in children for child in pair) != hanging or any(
        0 <= child <= node for node, pair in enumerate(children) for child in pair
    ):
        raise ValueError("left_child and right_child do not form a tree")
    # Explanations divide by them. A leaf's number counts from the end: -1 is leaf 0.
    rows = columns["internal_count"] + columns["leaf_count"][::-1]
    sums = [sum(rows[child] for child in pair) for pair in children]
    if nodes and (min(rows) <= 0 or rows[:nodes] != sums):
        raise ValueError("internal_count is not the sum of the rows of both children, each above 0")
    levels = [1] * nodes
    for node, pair in enumerate(children):
        for child in pair:
            if child >= 0:
                levels[child] = levels[node] + 1
    if max(levels, default=0) > DEEPEST_TREE:
        raise ValueError(f"more than {DEEPEST_TREE:,} levels deep")


def _fields(block: str, title: str, keys: Collection[str]) -> dict[str, str]:
    """The KEY=VALUE lines under a title, each once: all these keys and no others, but for the optional ones."""
    first, *lines = block.rstrip("\n").split("\n")
    fields = dict(line.partition("=")[::2] for line in lines)
    if first != title or len(fields) != len(lines) or set(fields) - _OPTIONAL != set(keys):
        raise ValueError(f"expected {title!r} and the lines {', '.join(keys)}")
    return fields


def _numbers(fields: Mapping[str, str], key: str, kind: type, count: int) -> list:
    values = fields[key].split(" ") if fields[key] else []
    try:
        numbers = [kind(value) for value in values if _NUMBER.fullmatch(value)]
    except ValueError:
        numbers = []
    if len(numbers) != count or len(values) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{key} is not {count} numbers")
    return numbers
