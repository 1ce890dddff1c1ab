"""Registry of the model families. A bundle can contain any of them, and any can be compared with.

Settings are checked by it, also those of commands that fit nothing. So scikit-learn, LightGBM and Optuna, which take a
second to load, are imported where they are used.
"""

from training.modeling.blend_model import BlendFamily
from training.modeling.family import ModelFamily
from training.modeling.gru_model import GruFamily
from training.modeling.lightgbm_model import LightGBMFamily
from training.modeling.logistic_model import LogisticFamily
from training.modeling.xgboost_model import XGBoostFamily

FAMILIES: dict[str, ModelFamily] = {
    family.name: family for family in (XGBoostFamily(), LightGBMFamily(), LogisticFamily(), BlendFamily(), GruFamily())
}  # fmt: skip

#: The families that `model: auto` chooses among, the simplest first. All of them keep to `monotone`.
CANDIDATES = ("logistic", "blend", "xgboost")
