"""Registry of the model families: XGBoost and LightGBM, one of which serves, and logistic regression, the baseline."""

from training.modeling.family import ModelFamily
from training.modeling.lightgbm_model import LightGBMFamily
from training.modeling.logistic_model import LogisticFamily
from training.modeling.xgboost_model import XGBoostFamily

FAMILIES: dict[str, ModelFamily] = {
    family.name: family for family in (XGBoostFamily(), LightGBMFamily(), LogisticFamily())
}  # fmt: skip
