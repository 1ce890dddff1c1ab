"""Fuzzing: mutated inputs for everything that reads what others write; `python -m tools.fuzz --help`.

mutation.py makes inputs from a corpus of valid ones, engine.py runs a target with them and keeps those that break its
contract, hostile_records.py is a list of click records for a running job. A target is a function of bytes with a
contract, in targets/.
"""
