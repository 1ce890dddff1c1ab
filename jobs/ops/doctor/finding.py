"""The result of a check, as one line. Uses only the standard library: tools.doctor runs before an install."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """The result of a check: its subject, the result, and the remedy, empty if all is well or unknown."""

    subject: str
    result: str
    remedy: str = ""
    unknown: bool = False

    def __str__(self) -> str:
        mark = "missing" if self.remedy else "unknown" if self.unknown else "ok"
        return f"{mark:8} {self.subject:20} {self.result}" + (f" -> {self.remedy}" if self.remedy else "")


def mebibytes(number: int) -> int:
    """Bytes as whole MiB, rounded up."""
    return -(-number >> 20)
