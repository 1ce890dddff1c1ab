"""What a bundle has to keep to before it may serve: section `admission` of conf/retraining.yaml."""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from udfs.config.durations import Duration
from udfs.config.reading import in_words, read_yaml
from udfs.models.signatures import PublicKey


class AdmissionError(ValueError):
    """Settings that can't be used; the message is one line that names the file, the key and the rule."""


class Admission(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Trusted keys, and the bounds of a trial."""

    trusted_keys: tuple[PublicKey, ...] = ()  # of which one must have signed the bundle; none: no need
    time: Duration = "10 s"  # of the processor, to load a model and score the rows of a trial
    memory_mib: Annotated[int, Meta(ge=64)] = 2048  # for that, beside what Python and the libraries take


DEFAULTS = Admission()


class _File(msgspec.Struct):
    admission: Admission = DEFAULTS


def load_admission(path: Path) -> Admission:
    """The section of a file of retraining settings; the defaults without it. Raises AdmissionError."""
    try:
        return msgspec.convert(read_yaml(path, AdmissionError) or {}, _File).admission
    except msgspec.ValidationError as error:
        raise AdmissionError(f"{path}: {in_words(error)}") from None
