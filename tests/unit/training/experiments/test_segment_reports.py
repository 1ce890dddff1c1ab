"""Segments in a report, from the command to its page."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from training.experiment import main
from training.experiments.profiles import read_countries
from training.experiments.report import SEGMENTS_NOTE

KPIS = Path(__file__).parents[4] / "conf" / "kpis.yaml"
START_MS = 1_772_323_200_000  # 2026-03-01T00:00:00Z
HOUR_MS = 3_600_000
USERS = 3_000


def rows() -> list[dict]:
    """One session of each user, of whom every tenth had one before; those with a mobile buy more in the treatment."""
    rng = np.random.default_rng(1)
    made = []
    for user in range(USERS):
        arm, device = (("challenger", "champion")[user % 2], ("mobile", "desktop", None)[user // 2 % 3])
        rate = 0.5 if (arm, device) == ("challenger", "mobile") else 0.2
        counts = {"events": 5, "pages": int(rng.integers(1, 4)), "purchases": int(rng.random() < rate)}
        nothing = ("view_promotions", "select_promotions", "add_to_carts", "begin_checkouts")
        row = {"user_id": f"u{user}", "arm": arm, "model_version": arm, "device": device}
        row |= {"started_at": START_MS + user, "ended_at": START_MS + user + 60_000, "revenue": 9.0}
        row |= counts | dict.fromkeys((*nothing, "form_starts", "form_submits"), 0)
        made.append(row)
        if user % 10 == 0:
            made.append(row | {"started_at": START_MS - HOUR_MS, "ended_at": START_MS - HOUR_MS, "arm": None})
    return made


@pytest.fixture
def reported(tmp_path, capsys):
    """Report on the sessions with some options; returns the exit code, what was printed, and the output directory."""
    path, out = tmp_path / "sessions.jsonl", tmp_path / "out"
    path.write_text("\n".join(map(json.dumps, rows())))
    stated = ["--start", "2026-03-01T00:00:00Z", "--shares", "challenger=0.5", "champion=0.5"]

    def run(*options: str):
        code = main(["report", "--sessions", str(path), "--kpis", str(KPIS), *stated, "--out", str(out), *options])
        return code, capsys.readouterr(), out

    return run


def test_segments_follow_the_report_and_change_nothing_in_it(reported):
    _, plain, out = reported()
    record = json.loads((out / "report.json").read_text())
    code, printed, _ = reported("--segments", "device", "new")
    assert code == 0
    opening = plain.out[: plain.out.index("\nwrote ")]
    assert printed.out.startswith(opening)
    added = printed.out.removeprefix(opening).splitlines()
    assert "By device" in added
    assert any(line.startswith("The effect on conversion rate differs by device: mobile +") for line in added)
    assert any(line.startswith("  mobile, 1,000 users ") and line.endswith("  better") for line in added)
    assert any(line.startswith("  unknown, 1,000 users ") for line in added)
    assert "By visit history" in added
    assert any(line.startswith("  returning, 300 users ") for line in added)
    assert "click_through_rate: no data in any segment" in added
    assert SEGMENTS_NOTE in added
    page = (out / "report.html").read_text()
    for line in (added[added.index("By device") + 1], SEGMENTS_NOTE, "<td>returning</td><td>300</td>"):
        assert line in page
    with_segments = json.loads((out / "report.json").read_text(), parse_constant=pytest.fail)
    found = with_segments.pop("segmentations")
    assert [part["attribute"] for part in found] == ["device", "visit history"]
    assert next(one for one in found[0]["segments"] if one["name"] == "mobile")["contrasts"]["conversion_rate"][
        "differs"
    ]
    assert record == with_segments | {"segmentations": []}


def test_countries_come_from_profiles(reported, tmp_path):
    profiles = tmp_path / "profiles.jsonl"
    given = [{"user_id": f"u{user}", "country": ("DE", "fra")[user // 2 % 2]} for user in range(USERS - 200)]
    given.append({"user_id": "u0", "country": "US", "updated_at": START_MS + HOUR_MS})
    profiles.write_text("\n".join(map(json.dumps, given)))
    code, printed, _ = reported("--segments", "country", "--profiles", str(profiles))
    assert code == 0
    for segment in ("DE, 1,400 users", "FR, 1,400 users", "unknown, 200 users"):
        assert f"  {segment} " in printed.out
    assert "US, " not in printed.out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--segments", "country"], "--segments country and --profiles PATH need each other: give both, or none"),
        (["--profiles", "p.jsonl"], "--segments country and --profiles PATH need each other: give both, or none"),
        (["--segments", "age"], "'age' is not one of 'device', 'new', 'country'"),
    ],
)
def test_options_that_do_not_fit_are_refused(reported, options, told):
    code, printed, _ = reported(*options)
    assert (code, printed.out) == (2, "")
    assert told in printed.err
    assert printed.err.count("\n") == 1


def test_profiles_of_which_none_is_accepted_are_refused(tmp_path):
    path = tmp_path / "profiles.jsonl"
    path.write_text('{"country": "DE"}\n')
    with pytest.raises(ValueError, match=r"profiles\.jsonl: no profile in it is accepted: .*user_id"):
        read_countries(path)


def test_deleted_and_unreadable_countries_are_unknown(tmp_path):
    path = tmp_path / "profiles.jsonl"
    lines = [{"user_id": "ada", "country": "DE"}, {"user_id": "ada", "country": "(not set)"}, {"user_id": 7}]
    path.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    expected = pd.DataFrame({"user_id": ["ada", "ada", "7"], "since_ms": 0, "country": ["DE", None, None]})
    pd.testing.assert_frame_equal(read_countries(path), expected, check_dtype=False)
