"""Profile records, through the handler that decodes them in the job; key and value are parted by a line break.

Contract: each record becomes a row for the score operator or a dead letter with a known reason, a message and the
record's bytes.
"""

import json

from tools.fuzz.engine import ContractError
from tools.fuzz.target import Target
from tools.fuzz.targets.clicks import check_letter, opened
from udfs.workers.decode import DEAD_LETTERS, ProfileHandler

_PROFILE = {
    "user_id": "ada", "country": "DE", "age_band": "25-34", "membership_tier": "gold", "signup_date": "2023-05-01",
    "marketing_consent": True,
}  # fmt: skip
_RECORDS = (
    _PROFILE,
    _PROFILE | {"country": "DEU", "marketing_consent": 1, "signup_date": "2023-05-01T10:00:00+02:00"},
    {"user_id": 7, "country": "de", "age_band": "X", "marketing_consent": "TRUE", "signup_date": None},
    {"user_id": "ada"},
)


def profiles() -> Target:
    process = opened(ProfileHandler("profiles", 65_536))
    corpus = [b"ada\n" + json.dumps(record).encode() for record in _RECORDS]

    def run(data: bytes) -> str:
        key, _, value = data.partition(b"\n")
        answer = process(key, value)
        if len(answer) != 1:
            raise ContractError(f"a profile became {len(answer)} records")
        output, content = answer[0]
        return check_letter(content, value) if output == DEAD_LETTERS else f"accepted {content[28:44].count(0)}"

    return Target((*corpus, b"ada\n", b"\n"), run)
