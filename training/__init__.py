"""Training and rollout of models: the modules here are commands, the packages are their libraries.

Each layer may import those below it, and all may import `udfs`: commands; `retraining`; `rollout`, `reporting`;
`simulation`, `experiments`, `backtesting`; `bundles`; `evaluation`; `modeling`; `data`. Packages of one layer do not
import each other. Of these, only the commands `train` and `simulate` import `training.simulation`.
"""

import os

# By default the threads of OpenMP spin while they wait, which takes the processor from other processes. The libraries
# that use it read this once, when they are loaded, so it is set here, before any module of training loads them.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
