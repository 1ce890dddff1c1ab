"""XGBoost's model files, read strictly before XGBoost reads them.

XGBoost checks little of what it loads: of files with damaged bytes, one in fifty ends the process. What `check_model`
accepts is a whole model whose trees are trees, in the form in which XGBoost 3.2 writes it (doc/model.schema in its
repository).
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from udfs.config.text import one_line
from udfs.models.ubjson import decode

OBJECTIVE = "binary:logistic"  # a score is a probability

#: Levels of a tree, also in LightGBM: explanations of a score call themselves for each, until the stack is full.
DEEPEST_TREE = 1_000

_NO_NODE, _NO_PARENT = -1, 2**31 - 1
_ROUNDED = 1e-3  # float32 sums of any number of rows
_LARGEST_LEAF = 1e30  # explanations add up leaves times sum_hessian, as float32
_COUNT = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_REAL = re.compile(r"-?[0-9]+(\.[0-9]+)?(E-?[0-9]{1,2})?", re.ASCII)
_NUMERIC_TYPES = ("float", "int", "i", "q")
_NODE_COLUMNS = {
    "base_weights": ">f4",
    "default_left": "u1",
    "left_children": ">i4",
    "loss_changes": ">f4",
    "parents": ">i4",
    "right_children": ">i4",
    "split_conditions": ">f4",
    "split_indices": ">i4",
    "split_type": "u1",
    "sum_hessian": ">f4",
}
_CATEGORIES = {
    "categories": ">i4",
    "categories_nodes": ">i4",
    "categories_segments": ">i8",
    "categories_sizes": ">i8",
}
_COLUMNS = {key: np.dtype(kind) for key, kind in {**_NODE_COLUMNS, **_CATEGORIES}.items()}
_TREE_FIELDS = {*_COLUMNS, "id", "tree_param"}
_FINITE = [key for key, dtype in _COLUMNS.items() if dtype.kind == "f"]


def check_model(content: bytes) -> tuple[tuple[str, ...], int]:
    """The names of the features, none if the model has none, and their number.

    Raises ValueError, one line with place, rule and value, unless it is a model of numeric splits whose margin is the
    sum of its trees.
    """
    if not content:
        raise ValueError("the file is empty")
    file = _fields(decode(content), "the file", {"learner": dict, "version": list})
    _require("version", _are(file["version"], int) and len(file["version"]) == 3, "three integers", file["version"])
    learner = _fields(
        file["learner"],
        "learner",
        {
            "attributes": dict,
            "feature_names": list,
            "feature_types": list,
            "gradient_booster": dict,
            "learner_model_param": dict,
            "objective": dict,
        },
    )
    _check_objective(learner["objective"])
    features = _check_parameters(learner["learner_model_param"])
    names, types = learner["feature_names"], learner["feature_types"]
    for key, texts in (("feature_names", names), ("feature_types", types)):
        is_right = _are(texts, str) and len(texts) in (0, features)
        _require(key, is_right, f"none, or a text for each of the {features} features", texts)
    _require("feature_types", set(types) <= {*_NUMERIC_TYPES}, f"of {', '.join(_NUMERIC_TYPES)}", types)
    _require("attributes", _are([*learner["attributes"].values()], str), "texts", learner["attributes"])
    _check_trees(_trees(learner["gradient_booster"]), features)
    return tuple(names), features


def _check_objective(objective: Mapping) -> None:
    _require("objective.name", objective.get("name") == OBJECTIVE, repr(OBJECTIVE), objective.get("name"))
    loss = _fields(objective, "objective", {"name": str, "reg_loss_param": dict})["reg_loss_param"]
    weight = _fields(loss, "reg_loss_param", {"scale_pos_weight": str})["scale_pos_weight"]
    _require("scale_pos_weight", _REAL.fullmatch(weight), "a number", weight)


def _check_parameters(parameters: Mapping) -> int:
    """The number of features."""
    keys = ("base_score", "boost_from_average", "num_class", "num_feature", "num_target")
    parameters = _fields(parameters, "learner_model_param", dict.fromkeys(keys, str))
    for key, values in (("boost_from_average", ("0", "1")), ("num_class", ("0",)), ("num_target", ("1",))):
        _require(key, parameters[key] in values, " or ".join(values), parameters[key])
    score, features = parameters["base_score"], parameters["num_feature"]
    is_probability = score[:1] + score[-1:] == "[]" and _REAL.fullmatch(score[1:-1]) and 0 < float(score[1:-1]) < 1
    _require("base_score", is_probability, "a probability in brackets", score)
    _require("num_feature", _COUNT.fullmatch(features), "a positive integer", features)
    return int(features)


def _trees(booster: Mapping) -> list:
    """The trees, not checked themselves."""
    _require("gradient_booster.name", booster.get("name") == "gbtree", "'gbtree'", booster.get("name"))
    model = _fields(booster, "gradient_booster", {"name": str, "model": dict})["model"]
    kinds = {"cats": dict, "gbtree_model_param": dict, "iteration_indptr": list, "tree_info": list, "trees": list}
    model = _fields(model, "gradient_booster.model", kinds)
    cats, parameters, trees = model["cats"], model["gbtree_model_param"], model["trees"]
    kinds = {"enc": list, "feature_segments": np.ndarray, "sorted_idx": np.ndarray}
    columns = [_fields(cats, "cats", kinds)[key] for key in ("feature_segments", "sorted_idx")]
    are_empty = all(column.dtype == _COLUMNS["categories"] and not len(column) for column in columns)
    _require("cats", are_empty and not cats["enc"], "empty", cats)
    _fields(parameters, "gbtree_model_param", {"num_parallel_tree": str, "num_trees": str})
    count, parallel = parameters["num_trees"], parameters["num_parallel_tree"]
    _require("num_trees", count == str(len(trees)), f"the number of trees, {len(trees)}", count)
    _require("num_parallel_tree", _COUNT.fullmatch(parallel), "a positive integer", parallel)
    rounds = list(range(0, len(trees) + 1, int(parallel)))
    is_right = model["iteration_indptr"] == rounds and rounds[-1] == len(trees)
    _require("iteration_indptr", is_right, "the first tree of each round", model["iteration_indptr"])
    _require("tree_info", model["tree_info"] == [0] * len(trees), "a 0 for each tree", model["tree_info"])
    return trees


def _check_trees(trees: Sequence, features: int) -> None:
    for number, tree in enumerate(trees):
        _check_shape(tree, number, features)
    if trees:
        sizes = np.array([len(tree["parents"]) for tree in trees])
        columns = {
            key: np.concatenate([tree[key] for tree in trees]).astype(_COLUMNS[key].newbyteorder("="))
            for key in _NODE_COLUMNS
        }
        _check_nodes(columns, sizes, features)


def _check_shape(tree: object, number: int, features: int) -> None:
    """Keys, types and lengths of a tree."""
    if not isinstance(tree, dict) or tree.keys() != _TREE_FIELDS:
        raise ValueError(f"tree {number}: expected the keys {', '.join(sorted(_TREE_FIELDS))}")
    nodes = len(tree["parents"]) if isinstance(tree["parents"], np.ndarray) else 0
    _require(f"tree {number}: parents", nodes, "an array with a number for each node", nodes)
    for key, dtype in _COLUMNS.items():
        column, length = tree[key], nodes if key in _NODE_COLUMNS else 0
        if not isinstance(column, np.ndarray) or column.dtype != dtype or len(column) != length:
            rule = f"{nodes} numbers of type {dtype.name}" if length else "empty, as categorical splits are not used"
            raise ValueError(f"tree {number}: {key} must be {rule}")
    _require(f"tree {number}: id", tree["id"] == number, str(number), tree["id"])
    expected = {"num_deleted": "0", "num_feature": str(features), "num_nodes": str(nodes), "size_leaf_vector": "1"}
    _require(f"tree {number}: tree_param", tree["tree_param"] == expected, str(expected), tree["tree_param"])


def _check_nodes(columns: Mapping[str, np.ndarray], sizes: np.ndarray, features: int) -> None:
    """The N nodes of all trees; columns of N values each, sizes of trees that sum to N."""
    starts = np.cumsum(sizes) - sizes
    start, size = np.repeat(starts, sizes), np.repeat(sizes, sizes)
    node = np.arange(len(start)) - start

    def require(key: str, is_right: np.ndarray, rule: str) -> None:
        if not is_right.all():
            at = int(is_right.argmin())
            tree = int(np.searchsorted(starts, at, "right")) - 1
            raise ValueError(f"tree {tree}: {key} of node {node[at]} is {columns[key][at]}, must be {rule}")

    for key in _FINITE:
        require(key, np.isfinite(columns[key]), "finite")
    require("default_left", columns["default_left"] <= 1, "0 or 1")
    require("split_type", columns["split_type"] == 0, "0, a numeric split")
    is_feature = (columns["split_indices"] >= 0) & (columns["split_indices"] < features)
    require("split_indices", is_feature, f"a feature from 0 to {features - 1}")
    is_leaf = columns["left_children"] == _NO_NODE
    inner = np.flatnonzero(~is_leaf)
    parents, degree = np.full(len(start), _NO_PARENT), np.zeros(len(start), np.int64)
    cover, below = columns["sum_hessian"], np.zeros(len(start))
    for key in ("left_children", "right_children"):
        child = columns[key].astype(np.int64)
        is_right = np.where(is_leaf, child == _NO_NODE, (child > node) & (child < size))
        require(key, is_right, "a later node of the tree, or -1 of both children for a leaf")
        children = (start + child)[inner]
        parents[children] = node[inner]
        degree += np.bincount(children, minlength=len(start))
        below[inner] += cover[children]
    # Each node but the root is the child of one node, which comes before it: so it is a tree.
    is_right = (columns["parents"] == parents) & (degree == (node > 0))
    require("parents", is_right, "the one node whose child it is")
    # Explanations divide by it: a child's share of it is that of the rows.
    is_right = np.where(is_leaf, cover >= 0, (cover > 0) & np.isclose(cover, below, rtol=_ROUNDED, atol=0))
    require("sum_hessian", is_right, "0 or more for a leaf, else above 0 and the sum of both children's")
    is_right = ~is_leaf | (abs(columns["split_conditions"]) <= _LARGEST_LEAF)
    require("split_conditions", is_right, f"at most {_LARGEST_LEAF:g} in size for a leaf")
    _check_depth(columns, start, starts)


def _check_depth(columns: Mapping[str, np.ndarray], start: np.ndarray, roots: np.ndarray) -> None:
    level = roots
    for _ in range(DEEPEST_TREE + 1):
        level = level[columns["left_children"][level] != _NO_NODE]
        if not len(level):
            return
        children = [start[level] + columns[key][level] for key in ("left_children", "right_children")]
        level = np.concatenate(children)
    tree = int(np.searchsorted(roots, level[0], "right")) - 1
    raise ValueError(f"tree {tree}: more than {DEEPEST_TREE:,} levels deep")


def _fields(value: object, place: str, kinds: Mapping[str, type]) -> Mapping:
    """An object with these keys and no others, whose values have these types."""
    if not isinstance(value, dict) or value.keys() != kinds.keys():
        raise ValueError(f"{place}: expected an object with the keys {', '.join(kinds)}")
    for key, kind in kinds.items():
        _require(f"{place}: {key}", isinstance(value[key], kind), f"of type {kind.__name__}", value[key])
    return value


def _are(values: Sequence, kind: type) -> bool:
    return all(isinstance(value, kind) for value in values)


def _require(key: str, is_right: object, rule: str, value: object) -> None:
    if not is_right:
        shown = one_line(repr(value))
        raise ValueError(f"{key} must be {rule} (got {shown if len(shown) <= 80 else shown[:77] + '...'})")
