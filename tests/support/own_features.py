"""A shop's own declaration of features, with everything that one can have, and a bundle of a model for it."""

from pathlib import Path

from tests.support.bundles import make_bundle
from udfs.features.declaration import Declaration
from udfs.features.declaration_file import load_declaration, to_json
from udfs.models.bundle import FEATURES_FILE

DECLARATION = """
extends: standard
kinds: {quiz_completed: 100, video_play: 101}
columns:
  quiz_score: {type: number, bytes: 2, scale: 10}
  plan: {type: category, names: [free, pro]}
  coupon: {type: identifier, field: coupon_id}
windows: [10m, 2h]
features:
  quiz:
    quizzes_{window}: {value: "count(kind == quiz_completed, over={window})", unit: events, doc: quizzes}
    quiz_score_mean: {value: "mean(quiz_score, kind == quiz_completed, over=2h)", unit: points, doc: mean score}
    quizzes_2d: {value: "count(kind == quiz_completed, over=2d, by=1h)", unit: events, doc: quizzes in two days}
    spent_3h: {value: "sum(value, kind == purchase, over=3h, by=10m)", unit: currency, doc: value in three hours}
    since_quiz_s: {value: "since_last(kind == quiz_completed, over=before)", unit: s, doc: time since the last quiz}
  account:
    plan: {value: now.plan, unit: code, doc: plan}
    same_coupon: {value: count(coupon == now.coupon), unit: events, doc: events with this coupon}
    price_spread: {python: tests.support.own_functions.price_spread, unit: currency, doc: spread of values}
"""
OWN = ("quizzes_10m", "quizzes_2h", "quiz_score_mean", "quizzes_2d", "spent_3h", "since_quiz_s", "plan", "same_coupon")
NAMES = (*OWN, "price_spread", "event_kind", "events_24h", "session_events", "item_in_cart", "first_visit")


def write_declaration(directory: Path, text: str = DECLARATION) -> Path:
    path = directory / "features.yaml"
    path.write_text(text)
    return path


def own_bundle(directory: Path, version: str, declaration: Declaration, names: tuple[str, ...] = NAMES) -> Path:
    return make_bundle(directory, version, changes={FEATURES_FILE: to_json(declaration)}, names=names)


def declared(directory: Path, text: str = DECLARATION) -> Declaration:
    return load_declaration(write_declaration(directory, text))
