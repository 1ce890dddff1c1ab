"""XGBoost without scikit-learn."""

import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("module", ["udfs.workers.score", "jobs.score_clicks"])
def test_a_worker_and_a_submission_go_without_scikit_learn(module):
    program = f"import sys, {module}; sys.exit('xgboost' not in sys.modules or 'sklearn' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
def test_scikit_learn_can_be_imported_before_and_after():
    for program in ("import udfs.models.lean_xgboost, sklearn.base", "import sklearn.base, udfs.models.lean_xgboost"):
        subprocess.run([sys.executable, "-c", program], check=True)
