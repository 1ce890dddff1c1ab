"""What XGBoost would not survive does not reach it."""

from functools import cache

import numpy as np
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.ubjson import encode
from udfs.models.attributions import xgboost_contributions
from udfs.models.bundle import load_booster
from udfs.models.ubjson import decode
from udfs.models.xgboost_ubjson import DEEPEST_TREE, check_model

NAMES = ["a", "b", "c"]
ROWS = np.random.default_rng(1).random((200, 3), np.float32)
LABELS = (ROWS[:, 0] + ROWS[:, 1] > 1).astype(np.float32)
MODEL, BOOSTER = ("learner", "gradient_booster", "model"), ("learner", "gradient_booster")
TREE = (*MODEL, "trees", 1)
NODE_COLUMNS = (
    "base_weights", "default_left", "left_children", "loss_changes", "parents", "right_children", "split_conditions",
    "split_indices", "split_type", "sum_hessian",
)  # fmt: skip
OTHER_COLUMNS = ("categories", "categories_nodes", "categories_segments", "categories_sizes")


@cache
def trained(rounds: int = 4, **parameters) -> bytes:
    data = xgboost.DMatrix(ROWS, LABELS, feature_names=NAMES)
    parameters = {"objective": "binary:logistic", "max_depth": 2, "nthread": 1} | parameters
    return bytes(xgboost.train(parameters, data, rounds).save_raw("ubj"))


def changed(*path_and_value) -> bytes:
    """The model with the value at a path replaced; None removes it."""
    *path, key, value = path_and_value
    file = decode(trained())
    place = file
    for step in path:
        place[step] = place[step].copy()
        place = place[step]
    if value is None:
        del place[key]
    else:
        place[key] = value
    return encode(file)


def chain(levels: int) -> bytes:
    """A model of one tree, whose right children have all the splits."""
    nodes = 2 * levels + 1
    inner = np.arange(0, nodes - 1, 2)
    left, right, parents = np.full(nodes, -1), np.full(nodes, -1), np.full(nodes, 2**31 - 1)
    left[inner], right[inner] = inner + 1, inner + 2
    parents[inner + 1] = parents[inner + 2] = inner
    tree = decode(trained(1))["learner"]["gradient_booster"]["model"]["trees"][0]
    for key in NODE_COLUMNS:
        tree[key] = np.zeros(nodes, tree[key].dtype)
    for key, column in (("left_children", left), ("right_children", right), ("parents", parents)):
        tree[key] = column.astype(">i4")
    cover = np.ones(nodes)
    cover[inner] = levels + 1 - inner / 2  # the leaves below
    tree["sum_hessian"] = cover.astype(">f4")
    file = decode(trained(1))
    file["learner"]["gradient_booster"]["model"]["trees"] = [
        tree | {"tree_param": tree["tree_param"] | {"num_nodes": str(nodes)}}
    ]
    return encode(file)


def refusal(content: bytes) -> str:
    with pytest.raises(ValueError, match="^[^\n]+$") as caught:
        check_model(content)
    return str(caught.value)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"rounds": 0},
        {"rounds": 300},
        {"max_depth": 6, "grow_policy": "lossguide", "max_leaves": 9, "gamma": 0.1},
        {"monotone_constraints": (1, 0, -1), "tree_method": "approx"},
        {"gamma": 100},
        {"num_parallel_tree": 3, "subsample": 0.5},
        {"scale_pos_weight": 1e-3, "base_score": 1e-6},
    ],
)
def test_what_xgboost_trains_is_accepted(parameters):
    assert check_model(trained(**parameters)) == (tuple(NAMES), 3)


def test_names_and_types_are_optional():
    data = xgboost.DMatrix(ROWS, LABELS)
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, data, 2)
    assert check_model(bytes(booster.save_raw("ubj"))) == ((), 3)
    booster.feature_types = ["q", "int", "float"]
    assert check_model(bytes(booster.save_raw("ubj"))) == ((), 3)


def reversed_keys(value: object) -> object:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [*map(reversed_keys, value)] if isinstance(value, list) else value


def test_keys_may_come_in_any_order():
    content = encode(reversed_keys(decode(trained())))
    assert check_model(content) == (tuple(NAMES), 3)
    assert (
        load_booster(content).inplace_predict(ROWS).tobytes() == load_booster(trained()).inplace_predict(ROWS).tobytes()
    )


def test_the_file_is_read_to_its_last_byte():
    assert encode(decode(trained())) == trained()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"booster": "gblinear"}, "gradient_booster.name must be 'gbtree' (got 'gblinear')"),
        ({"objective": "reg:squarederror"}, "objective.name must be 'binary:logistic' (got 'reg:squarederror')"),
        ({"tree_method": "exact", "gamma": 1.0, "max_depth": 6}, "tree 1: tree_param must be {'num_deleted': '0', "),
    ],
)
def test_a_model_of_another_kind_is_refused(parameters, message):
    assert refusal(trained(**parameters)).startswith(message)


def column(key: str, node: int, value: float) -> tuple:
    return (*TREE, key, node, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("version", [3, 2]), "version must be three integers (got [3, 2])"),
        (
            ("learner", "more", 1),
            "learner: expected an object with the keys attributes, feature_names, feature_types, ",
        ),
        (
            ("learner", "objective", {"name": "binary:logistic"}),
            "objective: expected an object with the keys name, reg",
        ),
        (("learner", "attributes", "a", 1), "attributes must be texts (got {'a': 1})"),
        (("learner", "attributes", []), "learner: attributes must be of type dict (got [])"),
        (
            ("learner", "feature_names", ["a"]),
            "feature_names must be none, or a text for each of the 3 features (got [",
        ),
        (("learner", "feature_types", ["c"] * 3), "feature_types must be of float, int, i, q (got ['c', 'c', 'c'])"),
        (("learner", "learner_model_param", "num_class", "2"), "num_class must be 0 (got '2')"),
        (("learner", "learner_model_param", "num_target", "2"), "num_target must be 1 (got '2')"),
        (("learner", "learner_model_param", "num_feature", "0"), "num_feature must be a positive integer (got '0')"),
        (
            ("learner", "learner_model_param", "base_score", "5E-1"),
            "base_score must be a probability in brackets (got ",
        ),
        (("learner", "learner_model_param", "base_score", "[1.5E0]"), "base_score must be a probability in brackets ("),
        (
            ("learner", "learner_model_param", "base_score", "[NaN]"),
            "base_score must be a probability in brackets (got",
        ),
        (
            ("learner", "objective", "reg_loss_param", "scale_pos_weight", "inf"),
            "scale_pos_weight must be a number (got",
        ),
        ((*MODEL, "gbtree_model_param", "num_trees", "5"), "num_trees must be the number of trees, 4 (got '5')"),
        ((*MODEL, "gbtree_model_param", "num_parallel_tree", "0"), "num_parallel_tree must be a positive integer (got"),
        (
            (*MODEL, "gbtree_model_param", "num_parallel_tree", "3"),
            "iteration_indptr must be the first tree of each ro",
        ),
        ((*MODEL, "iteration_indptr", 2, 9), "iteration_indptr must be the first tree of each round (got [0, 1, 9, 3,"),
        ((*MODEL, "tree_info", 2, 1), "tree_info must be a 0 for each tree (got [0, 0, 1, 0])"),
        ((*MODEL, "cats", "sorted_idx", np.zeros(1, ">i4")), "cats must be empty (got {"),
        ((*MODEL, "cats", "sorted_idx", np.zeros(0, ">f4")), "cats must be empty (got {"),
        ((*MODEL, "trees", 1, 7), "tree 1: expected the keys base_weights, categories, "),
        ((*TREE, "parents", None), "tree 1: expected the keys base_weights, "),
        ((*TREE, "parents", [1, 2]), "tree 1: parents must be an array with a number for each node (got 0)"),
        ((*TREE, "id", 0), "tree 1: id must be 1 (got 0)"),
        ((*TREE, "base_weights", np.zeros(3, ">f4")), "tree 1: base_weights must be 7 numbers of type float32"),
        ((*TREE, "split_indices", np.zeros(7, ">i8")), "tree 1: split_indices must be 7 numbers of type int32"),
        ((*TREE, "categories", np.zeros(1, ">i4")), "tree 1: categories must be empty, as categorical splits are not"),
        ((*TREE, "tree_param", "num_nodes", "8"), "tree 1: tree_param must be {'num_deleted': '0', 'num_feature': '3'"),
        (column("split_conditions", 2, np.nan), "tree 1: split_conditions of node 2 is nan, must be finite"),
        (column("sum_hessian", 6, np.inf), "tree 1: sum_hessian of node 6 is inf, must be finite"),
        (column("default_left", 3, 2), "tree 1: default_left of node 3 is 2, must be 0 or 1"),
        (column("split_type", 3, 1), "tree 1: split_type of node 3 is 1, must be 0, a numeric split"),
        (column("split_indices", 0, 3), "tree 1: split_indices of node 0 is 3, must be a feature from 0 to 2"),
        (column("split_indices", 0, -1), "tree 1: split_indices of node 0 is -1, must be a feature from 0 to 2"),
        (column("left_children", 0, 7), "tree 1: left_children of node 0 is 7, must be a later node of the tree, or -"),
        (column("left_children", 2, 0), "tree 1: left_children of node 2 is 0, must be a later node of the tree, or -"),
        (column("left_children", 0, -1), "tree 1: right_children of node 0 is 2, must be a later node of the tree, o"),
        (column("right_children", 0, -1), "tree 1: right_children of node 0 is -1, must be a later node of the tree,"),
        (column("right_children", 0, 1), "tree 1: parents of node 1 is 0, must be the one node whose child it is"),
        (column("parents", 0, 1), "tree 1: parents of node 0 is 1, must be the one node whose child it is"),
        (column("parents", 5, 1), "tree 1: parents of node 5 is 1, must be the one node whose child it is"),
        (
            column("split_conditions", 3, 2e30),
            "tree 1: split_conditions of node 3 is 2.0000000300949324e+30, must be at ",
        ),
        (column("sum_hessian", 0, 0), "tree 1: sum_hessian of node 0 is 0.0, must be 0 or more for a leaf, else above"),
        (column("sum_hessian", 0, 1e30), "tree 1: sum_hessian of node 0 is 1.0000000150474662e+30, must be 0 or more"),
        (column("sum_hessian", 6, -1), "tree 1: sum_hessian of node 2 is 27.26993179321289, must be 0 or more for"),
    ],
)
def test_a_damaged_model_is_refused_by_place_rule_and_value(change, message):
    assert refusal(changed(*change)).startswith(message)


def test_a_tree_that_is_too_deep_to_explain_is_refused():
    booster = load_booster(chain(DEEPEST_TREE))
    check_model(chain(DEEPEST_TREE))
    assert xgboost_contributions(booster, ROWS[:2]).shape == (2, 4)
    assert refusal(chain(DEEPEST_TREE + 1)) == "tree 0: more than 1,000 levels deep"


hostile = st.integers(-3, 9) | st.sampled_from([2**31 - 1, -(2**31), np.nan, np.inf, 1e38, 0.5]) | st.integers(0, 2**31)


@examples(60)
@given(st.integers(0, 3), st.sampled_from(NODE_COLUMNS), st.integers(0, 6), hostile)
def test_a_model_with_one_other_value_is_refused_or_scores(tree, key, node, value):
    file = decode(trained())
    columns = file["learner"]["gradient_booster"]["model"]["trees"][tree]
    damaged = columns[key].copy()
    with np.errstate(all="ignore"):
        damaged[node % len(damaged)] = np.array([value]).astype(damaged.dtype)[0]
    columns[key] = damaged
    content = encode(file)
    try:
        check_model(content)
    except ValueError:
        return
    booster = load_booster(content)
    assert np.isfinite(booster.inplace_predict(ROWS)).all()
    contributions = xgboost_contributions(booster, ROWS[:3])
    assert contributions.shape == (3, 4)
    assert np.isfinite(contributions).all()


@examples(60)
@given(st.data())
def test_a_model_with_other_bytes_is_refused_or_scores(data):
    content = bytearray(trained())
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[at] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, content[at] ^ 1, content[at] ^ 16]))
    try:
        check_model(bytes(content))
    except ValueError:
        return
    assert load_booster(bytes(content)).inplace_predict(ROWS).shape == (200,)
