"""The reasons for which records are rejected: a stable code for machines and a message for people."""

import json
import re
from enum import StrEnum

import msgspec


class Reason(StrEnum):
    """Reason codes of the dead-letter topic."""

    EMPTY_RECORD = "empty_record"
    TOO_LARGE = "too_large"
    INVALID_UTF8 = "invalid_utf8"
    INVALID_JSON = "invalid_json"
    NOT_FINITE = "not_finite"
    TOO_DEEP = "too_deep"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_FIELD = "missing_field"
    EMPTY_FIELD = "empty_field"
    WRONG_TYPE = "wrong_type"
    TOO_LONG = "too_long"
    OUT_OF_RANGE = "out_of_range"
    TIME_TOO_OLD = "time_too_old"
    TIME_IN_FUTURE = "time_in_future"


class Reject(ValueError):
    """A record that breaks the contract."""

    def __init__(self, reason: Reason, message: str):
        super().__init__(message)
        self.reason = reason


def explain(payload: bytes | None, error: Exception) -> Reject:
    """Name the rule that `payload` broke when decoding it raised `error`.

    Only errors that a record can cause are explained; any other is a defect of ours and is raised again.
    """
    if isinstance(error, Reject):
        return error
    if isinstance(error, UnicodeDecodeError):
        return Reject(Reason.INVALID_UTF8, f"not UTF-8: {error.reason}, 0x{error.object[error.start]:02x}")
    if not payload:
        return Reject(Reason.EMPTY_RECORD, "the record has no bytes")
    if isinstance(error, RecursionError):
        return Reject(Reason.TOO_DEEP, "objects or arrays are nested too deeply")
    if isinstance(error, msgspec.ValidationError):
        return Reject(_broken_rule(str(error)), str(error))
    if isinstance(error, msgspec.DecodeError):
        return _explain_malformed(payload, error)
    raise error


#: Patterns of msgspec's messages, in the order to try, and their reasons.
_RULES = (
    (re.compile(r"^Expected `object`, got `\w+`$"), Reason.NOT_AN_OBJECT),
    (re.compile(r"missing required field"), Reason.MISSING_FIELD),
    (re.compile(r"of length >= 1\b"), Reason.EMPTY_FIELD),
    (re.compile(r"of length <= "), Reason.TOO_LONG),
    (re.compile(r"Number out of range"), Reason.NOT_FINITE),
    (re.compile(r"[<>]=? -?[\d.]+|out of range|Invalid|matching regex"), Reason.OUT_OF_RANGE),
    (re.compile(r"Expected `.*`, got `"), Reason.WRONG_TYPE),
)


def _broken_rule(message: str) -> Reason:
    return next((reason for pattern, reason in _RULES if pattern.search(message)), Reason.WRONG_TYPE)


def _explain_malformed(payload: bytes, error: msgspec.DecodeError) -> Reject:
    """Distinguish NaN, Infinity and bytes that are not UTF-8 from bad syntax, by parsing the record again."""
    constants = []
    try:
        text = payload.decode()
        json.loads(text, parse_constant=constants.append)
    except UnicodeDecodeError as not_utf8:
        return Reject(Reason.INVALID_UTF8, f"not UTF-8: {not_utf8.reason}, byte {not_utf8.start} of the record")
    except RecursionError:
        return Reject(Reason.TOO_DEEP, "objects or arrays are nested too deeply")
    except ValueError:  # malformed for the standard library too: msgspec's message says where
        pass
    if constants:
        return Reject(Reason.NOT_FINITE, f"{constants[0]} is not a JSON number")
    return Reject(Reason.INVALID_JSON, str(error))
