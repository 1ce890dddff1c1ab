"""XGBoost without scikit-learn."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_worker_and_a_submission_go_without_scikit_learn_which_can_be_imported_later():
    program = """
import sys
import udfs.workers.score
import jobs.score_clicks

assert "xgboost" in sys.modules
assert "sklearn" not in sys.modules
import sklearn.base
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
def test_scikit_learn_can_be_imported_earlier():
    subprocess.run([sys.executable, "-c", "import sklearn.base, udfs.models.lean_xgboost"], check=True)
