"""Training and rollout of models: the modules here are commands, the packages are their libraries.

Each layer may import those below it, and all may import `udfs`: commands; `retraining`; `rollout`, `reporting`;
`simulation`, `experiments`, `backtesting`; `bundles`; `evaluation`; `modeling`; `data`. Packages of one layer do not
import each other. Of these, only the commands `train` and `simulate` import `training.simulation`.
"""
