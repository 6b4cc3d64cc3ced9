"""Where everything lies in a registry, and which names may take part in a path. Pure.

models/<model>/<variant>/<version>/...        the payload
registry/<model>/reservations/<version>.json  this number is taken
registry/<model>/versions/<version>.json      the manifest, or a tombstone
registry/<model>/sources/<identity>.json      which reservation packages this identity
registry/<model>/state.json                   what its labels name, and what is retired
registry/<model>/history/<revision>.json      every transition of the state but the last
registry/<model>/rejected/<identity>.json     why a model was refused
staging/<run>/...                             work in progress
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from model_registry.errors import InvalidInputError

MODELS = "models/"
REGISTRY = "registry/"
STAGING = "staging/"

# One path segment on every store, one Prometheus label value, one models.config string; what MLflow
# and BentoML accept, without the characters a shell or a URL would need quoted.
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
LABEL_PATTERN = "[a-z][a-z0-9-]{0,62}"
_LABEL = re.compile(LABEL_PATTERN)

# What S3 ever accepted. boto3 takes more for a bucket's name: an ARN, and the alias of an access point on Outposts
# (--op-s3), are requests to a host that the name chooses, whatever AWS_ENDPOINT_URL says.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}(?<!--op-s3)")

# A store's half-written files; a name that TensorFlow Serving does not take for a version.
TEMPORARY = ".slipway-"

# An S3 key has 1,024 bytes, the registry's own prefix among them; a file name on Linux has 255.
_KEY_BYTES = 900
_PART_BYTES = 255


def check_model_name(name: str) -> str:
    """Returns the name if a model may bear it.

    Raises:
        InvalidInputError: If it may not; the message shows the rule.
    """
    if not _MODEL_NAME.fullmatch(name):
        shown = name if len(name) <= 60 else f"{name[:57]}..."
        raise InvalidInputError(
            f"model name {shown!r} ({len(name)} characters) cannot be used: expected 1 to 128 letters, "
            "digits, '.', '_' or '-', beginning with a letter or digit",
            hint="choose another name with --name or the spec's `model`",
        )
    return name


def check_bucket(name: str) -> str:
    """Returns the name if it is that of a bucket at the endpoint that is configured, and leads nowhere else.

    Raises:
        InvalidInputError: If it is an ARN, an alias that stands for another host, or no name.
    """
    if not _BUCKET.fullmatch(name):
        shown = name if len(name) <= 100 else f"{name[:97]}..."
        raise InvalidInputError(
            f"{shown!r} cannot be used as a bucket: expected a bucket's name, of letters, digits, '.', '_' and '-'",
            hint="an ARN is not accepted; an access point has an alias that is",
        )
    return name


def check_key(key: str) -> str:
    """Returns the key if every store can hold an object under it, and nowhere else.

    Raises:
        InvalidInputError: If it could leave the registry's root, or some store would refuse it.
    """
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts):
        wrong = "its parts must be neither empty nor '.' nor '..'"
    elif any(part.startswith(TEMPORARY) for part in parts):
        wrong = f"names beginning with {TEMPORARY!r} are the store's own"
    elif not key.isprintable() or "\\" in key:  # lone surrogates, of names that are no UTF-8, are not printable
        wrong = "it must be printable UTF-8 without backslashes"
    elif len(key.encode()) > _KEY_BYTES or any(len(part.encode()) > _PART_BYTES for part in parts):
        wrong = f"expected at most {_KEY_BYTES} bytes, {_PART_BYTES} in each part"
    else:
        return key
    shown = key if len(key) <= 120 else f"{key[:117]}..."
    raise InvalidInputError(f"{shown!r} cannot be a key in a registry: {wrong}")


def check_prefix(prefix: str) -> str:
    """Returns the prefix if it is empty, for the whole registry, or a valid key and a slash.

    Raises:
        InvalidInputError: If it is neither.
    """
    if prefix:
        if not prefix.endswith("/"):
            raise InvalidInputError(f"{prefix!r} is no prefix in a registry: expected a closing '/'")
        check_key(prefix[:-1])
    return prefix


def check_label(label: str) -> str:
    """Returns the label if one may be called so.

    Raises:
        InvalidInputError: If it may not; the message shows the rule.
    """
    if not _LABEL.fullmatch(label):
        raise InvalidInputError(
            f"{label[:60]!r} cannot be a label: expected 1 to 63 lower-case letters, digits and '-', beginning with "
            "a letter, such as 'stable'"
        )
    return label


@dataclass(frozen=True)
class Reference:
    """A model as people name it: `digits`, `digits:3` or `digits@stable`.

    At most one of version and label is set; neither means the newest version.
    """

    model: str
    version: int | None = None
    label: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Reads a reference.

        Raises:
            InvalidInputError: If the text is none.
        """
        model, colon, version = text.partition(":")
        if colon:
            if not re.fullmatch(r"[1-9][0-9]{0,17}", version):
                raise InvalidInputError(
                    f"{text!r} names no version: expected MODEL:VERSION with a whole number from 1, found {version!r}"
                )
            return cls(check_model_name(model), version=int(version))
        model, at, label = text.partition("@")
        if at:
            if not _LABEL.fullmatch(label):
                raise InvalidInputError(
                    f"{text!r} names no label: expected MODEL@LABEL with a label like 'stable', found {label!r}"
                )
            return cls(check_model_name(model), label=label)
        return cls(check_model_name(text))

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.model}:{self.version}"
        return f"{self.model}@{self.label}" if self.label else self.model


def payload(model: str, variant: str, version: int) -> str:
    """Prefix of a variant's files, with the closing slash."""
    return f"{MODELS}{model}/{variant}/{version}/"


def reservations(model: str) -> str:
    """Prefix of a model's reservations."""
    return f"{REGISTRY}{model}/reservations/"


def reservation(model: str, version: int) -> str:
    """Key that takes a number."""
    return f"{reservations(model)}{version}.json"


def versions(model: str) -> str:
    """Prefix of a model's manifests."""
    return f"{REGISTRY}{model}/versions/"


def manifest(model: str, version: int) -> str:
    """Key of the manifest: its existence is the commit."""
    return f"{versions(model)}{version}.json"


def claim(model: str, identity: str) -> str:
    """Key of the claim on an identity."""
    return f"{REGISTRY}{model}/sources/{identity}.json"


def state(model: str) -> str:
    """Key of the state: labels and retired versions."""
    return f"{REGISTRY}{model}/state.json"


def history(model: str) -> str:
    """Prefix of the records of transitions."""
    return f"{REGISTRY}{model}/history/"


def record(model: str, revision: int) -> str:
    """Key of the record of one transition."""
    return f"{history(model)}{revision}.json"


def rejections(model: str) -> str:
    """Prefix of the records of refused candidates."""
    return f"{REGISTRY}{model}/rejected/"


def rejection(model: str, identity: str) -> str:
    """Key of the record of a refused candidate."""
    return f"{rejections(model)}{identity}.json"


def staging(run: str) -> str:
    """Prefix of a run's work in progress."""
    return f"{STAGING}{run}/"


def version_of(key: str) -> int | None:
    """The number in the key of a reservation, a manifest or a record of history, or None where there is none."""
    match = re.fullmatch(r".*/([1-9][0-9]{0,17})\.json", key)
    return int(match.group(1)) if match else None
