"""The published contracts of the topics, to hold real records against."""

import json
from collections.abc import Iterable

from jsonschema import Draft202012Validator

from tools.json_schemas import ROLES, contract_path

WRITTEN = [role for role in ROLES if role not in ("clicks", "mapped_clicks", "profiles")]  # by the jobs


def contract(role: str) -> dict:
    """The JSON Schema of a topic's values."""
    return json.loads(contract_path(role).read_text())


def broken(role: str, values: Iterable[bytes]) -> list[str]:
    """What the values break of their topic's contract: path, rule and value of each."""
    validator = Draft202012Validator(contract(role))
    return [
        f"{role}: {error.json_path}: {error.message}"
        for value in values
        for error in validator.iter_errors(json.loads(value))
    ]
