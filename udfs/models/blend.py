"""A blend of trees and a regression as a file of a bundle: the weighted mean of their logits.

logit = trees_weight * logit of the trees + (1 - trees_weight) * logit of the regression
"""

from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from udfs.config.reading import NOT_JSON
from udfs.config.text import one_line
from udfs.models.regression import RegressionFile, checked


class BlendFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a blend's file, as JSON."""

    format: Literal[1]
    trees_weight: Annotated[float, Meta(ge=0, le=1)]
    regression: RegressionFile
    trees: bytes  # an XGBoost model in UBJSON; Base64 in the file


def decode_blend(content: bytes) -> BlendFile:
    """The blend of a file, its trees unread. Raises ValueError, one line with key and rule."""
    try:
        file = msgspec.json.decode(content, type=BlendFile)
    except NOT_JSON as error:
        raise ValueError(one_line(error)) from None
    checked(file.regression)
    return file


def weighted_mean(trees_weight: float, of_trees: np.ndarray, of_regression: np.ndarray) -> np.ndarray:
    """The weighted mean, float64, of the logits of both models, or of what features add to them."""
    return trees_weight * of_trees.astype(np.float64) + (1 - trees_weight) * of_regression
