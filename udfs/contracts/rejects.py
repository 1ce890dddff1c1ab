"""The reasons for which records are rejected: a stable code for machines and a message for people."""

import json
import re
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta


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
    UNKNOWN_CURRENCY = "unknown_currency"
    INVALID_FRAME = "invalid_frame"
    UNKNOWN_SCHEMA = "unknown_schema"
    INVALID_AVRO = "invalid_avro"
    INVALID_PROTOBUF = "invalid_protobuf"
    UNFIT_ROW = "unfit_row"  # a mapping can't make a click of it
    IGNORED = "ignored"  # left out as the mapping says: counted, but no dead letter


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
    if (reason := _reason_of_unfit_row(payload)) is not None:
        return Reject(Reason.UNFIT_ROW, reason)
    if isinstance(error, RecursionError):
        return Reject(Reason.TOO_DEEP, "objects or arrays are nested too deeply")
    if isinstance(error, msgspec.ValidationError):
        return Reject(_broken_rule(str(error)), str(error))
    if isinstance(error, msgspec.DecodeError):
        return _explain_malformed(payload, error)
    raise error


#: Bytes of an unfit row that its record shows: a record that is too large would be rejected for that instead.
LARGEST_UNFIT_ROW = 8_192
_UNFIT_ROW = b'{"unfit_row":'


def unfit_row(row: bytes, reason: str) -> bytes:
    """The record of a file's row that a mapping can't make a click of: in no case a click, it becomes a dead letter."""
    shown = row[:LARGEST_UNFIT_ROW].decode("utf-8", "replace")
    return msgspec.json.encode({"unfit_row": shown, "reason": reason})


class _UnfitRow(msgspec.Struct):
    reason: Annotated[str, Meta(pattern=r"\S")]


def _reason_of_unfit_row(payload: bytes) -> str | None:
    if not payload.startswith(_UNFIT_ROW):
        return None
    try:
        return msgspec.json.decode(payload, type=_UnfitRow).reason
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # what a producer can send as well
        return None


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
    """Distinguish NaN, several objects and bytes that are not UTF-8 from bad syntax, by parsing the record again."""
    constants = []
    try:
        text = payload.decode().lstrip()
        first, end = json.JSONDecoder(parse_constant=constants.append).raw_decode(text)
        if isinstance(first, dict) and text[end:].lstrip(" \t\r\n,").startswith("{"):
            return Reject(Reason.INVALID_JSON, "more than one JSON object: send each as a record of its own")
    except UnicodeDecodeError as not_utf8:
        return Reject(Reason.INVALID_UTF8, f"not UTF-8: {not_utf8.reason}, byte {not_utf8.start} of the record")
    except RecursionError:
        return Reject(Reason.TOO_DEEP, "objects or arrays are nested too deeply")
    except ValueError:  # malformed for the standard library too: msgspec's message says where
        return Reject(Reason.INVALID_JSON, str(error))
    if constants and not text[end:].strip():
        return Reject(Reason.NOT_FINITE, f"{constants[0]} is not a JSON number")
    return Reject(Reason.INVALID_JSON, str(error))
