"""The result of a check, as one line. Uses only the standard library: tools.doctor runs before an install."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What was looked at, what was found, what to do about it; no remedy when all is well or unknown."""

    subject: str
    found: str
    remedy: str = ""
    unknown: bool = False

    def __str__(self) -> str:
        mark = "missing" if self.remedy else "unknown" if self.unknown else "ok"
        return f"{mark:8} {self.subject:20} {self.found}" + (f" -> {self.remedy}" if self.remedy else "")


def mebibytes(number: int) -> int:
    """Bytes as whole MiB, rounded up."""
    return -(-number >> 20)
