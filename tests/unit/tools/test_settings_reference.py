"""The reference of settings says all there is to say, and is what the settings are now."""

import msgspec

from jobs.common.settings import OPEN_SECTIONS, Settings
from tools.settings_reference import BASE, PAGE, described, reference, rule, with_reference

DESCRIBED = {entry.key: entry for entry in described(BASE.read_text())}


def test_the_page_has_the_reference_of_now():
    page = PAGE.read_text()
    assert page == with_reference(page, BASE.read_text()), "run `make reference`"


def test_each_key_of_the_settings_is_described_and_no_other():
    plain = msgspec.json.schema(Settings)["$defs"]
    sections = {name: field for name, field in plain["Settings"]["properties"].items() if name not in OPEN_SECTIONS}
    keys = {f"{name}.{key}" for name, of in sections.items() for key in plain[of["$ref"].split("/")[-1]]["properties"]}
    closed = {key for key in DESCRIBED if "." in key and key.split(".")[0] not in OPEN_SECTIONS}
    assert closed == keys
    assert [key for key, entry in DESCRIBED.items() if "." in key and not entry.meaning] == []


def test_a_comment_goes_on_over_lines():
    base = "job:   # of the job\n  name: x   # shown\n            # by Flink: docs/rollout.md\n"
    assert [entry.meaning for entry in described(base)] == ["of the job", "shown by Flink: docs/rollout.md"]
    assert "| `job.name` | name | `x` | shown by Flink: [rollout](rollout.md) |" in reference(base)


def test_rules_are_in_words():
    assert rule({"anyOf": [{"type": "string", "title": "duration"}, {"type": "null"}]}) == "duration or `null`"
    assert rule({"type": "number", "exclusiveMinimum": 0, "maximum": 1}) == "number > 0, ≤ 1"
