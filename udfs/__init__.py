"""Everything that runs inside a Flink worker, in Python that training and the dashboard import too.

Only `udfs.flink` imports PyFlink. Nothing here imports another top-level package of this project. Each layer may
import those below it: `workers`, `flink`; `serving`; `rollout`; `models`; `measurement`, `kafka`; `features`;
`metrics`; `contracts`; `config`. Packages of one layer do not import each other.
"""
