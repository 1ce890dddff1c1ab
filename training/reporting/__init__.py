"""What a training is told to people and programs: report, recommendation, cost of serving, run in MLflow."""
