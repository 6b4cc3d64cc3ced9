"""Signs manifests, and tells whether one is still what was signed.

A signature covers the whole document but itself: a field that a newer Slipway added is covered by an older
one too. It is made over canonical JSON (keys sorted, no spaces, ASCII), so that it survives a store or a
tool that lays the document out in another way. It lies in the manifest, so that both are committed at once:

    "signature": {"algorithm": "ed25519", "key_id": "<16 hex digits>", "value": "<base64>"}

The algorithm is Ed25519 (RFC 8032), the key files are PEM (RFC 7468) as openssl writes them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from reprlib import repr as shortened  # what it shows is untrusted, and may be of any size
from typing import TYPE_CHECKING, Any, TypeVar

from model_registry.errors import FormatError, InvalidInputError

# Imported inside functions: who has no key configured does not wait for it.
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNING_KEY_VARIABLE = "SLIPWAY_SIGNING_KEY"
PUBLIC_KEY_VARIABLE = "SLIPWAY_PUBLIC_KEY"

MEMBER = "signature"
ALGORITHM = "ed25519"

# Nothing else that the same key may sign one day can be passed off as a manifest.
_CONTEXT = b"slipway-manifest-v1\n"
_MEMBERS = {"algorithm", "key_id", "value"}
_VALUE_BYTES = 64
_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_Key = TypeVar("_Key")
_HOW_TO_MAKE = "make one with: openssl genpkey -algorithm ed25519 -out signing-key.pem"
_HOW_TO_DERIVE = "derive it with: openssl pkey -in signing-key.pem -pubout -out public-key.pem"
_WHO = "somebody who can write into the registry changed it after it was signed"
_RESTORE = "do not serve this version; restore the document from a backup, or package the model anew with --force"


class Signer:
    """Holds a private key, and shows no more of it than its id.

    Attributes:
        key_id: The first 16 hexadecimal digits of the SHA-256 of the raw public key.
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.key_id = _key_id(key.public_key())

    def __repr__(self) -> str:
        return f"Signer(key_id={self.key_id!r})"

    @classmethod
    def from_file(cls, path: Path) -> Signer:
        """Reads a private key: one unencrypted PKCS#8 block in PEM.

        Who else may read the file is not looked at: Kubernetes and Docker mount secrets world-readable, into
        containers where nobody else is.

        Raises:
            InvalidInputError: If the file cannot be read, or has anything but one such Ed25519 key.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        blocks = _pem_blocks(path)
        labels = [label for label, _ in blocks]
        if labels == ["ENCRYPTED PRIVATE KEY"]:
            raise InvalidInputError(
                f"{path} is encrypted, expected a private key without a passphrase: nobody is there to type it",
                hint="decrypt it with: openssl pkey -in KEY -out signing-key.pem; guard it by where it is mounted",
            )
        if labels != ["PRIVATE KEY"]:
            raise InvalidInputError(
                f"{path} is no signing key: expected one PEM block PRIVATE KEY, found {_enumerated(labels)}",
                hint=_HOW_TO_MAKE,
            )
        key = _loaded(partial(load_pem_private_key, blocks[0][1], password=None), str(path), _HOW_TO_MAKE)
        if not isinstance(key, Ed25519PrivateKey):
            raise _other_type(key, str(path), _HOW_TO_MAKE)
        return cls(key)

    def sign(self, document: Mapping[str, Any]) -> dict[str, str]:
        """Makes the signature of a manifest.

        Args:
            document: As it is parsed from the bytes that would be stored, not the values they were made from;
                a signature it already has is replaced, not covered.

        Returns:
            The document's member `signature`.

        Raises:
            InvalidInputError: If the document has no canonical JSON.
        """
        value = self._key.sign(_covered(document))
        return {"algorithm": ALGORITHM, "key_id": self.key_id, "value": base64.b64encode(value).decode("ascii")}


class Verifier:
    """The public keys whose signatures count.

    Attributes:
        key_ids: Their ids, in the order of the file.
    """

    def __init__(self, *keys: Ed25519PublicKey) -> None:
        self._keys = {_key_id(key): key for key in keys}
        self.key_ids = tuple(self._keys)

    def __repr__(self) -> str:
        return f"Verifier(key_ids={self.key_ids!r})"

    @classmethod
    def from_file(cls, path: Path) -> Verifier:
        """Reads public keys: SubjectPublicKeyInfo blocks in PEM, one after the other.

        Several are for the time of a rotation. Text around the blocks is passed over, so they can be commented.

        Raises:
            InvalidInputError: If the file cannot be read, has none, or has anything but Ed25519 public keys.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        blocks = _pem_blocks(path)
        labels = [label for label, _ in blocks]
        if any("PRIVATE" in label for label in labels):
            raise InvalidInputError(
                f"{path} has a private key, expected PEM blocks PUBLIC KEY alone, found {_enumerated(labels)}",
                hint=f"take it away from here, whoever could read it can sign; {_HOW_TO_DERIVE}",
            )
        if not labels or set(labels) != {"PUBLIC KEY"}:
            raise InvalidInputError(
                f"{path} is no file of public keys: expected PEM blocks PUBLIC KEY, found {_enumerated(labels)}",
                hint=_HOW_TO_DERIVE,
            )
        keys = []
        for number, (_, block) in enumerate(blocks, start=1):
            where = f"{path}: block {number}"
            key = _loaded(partial(load_pem_public_key, block), where, _HOW_TO_DERIVE)
            if not isinstance(key, Ed25519PublicKey):
                raise _other_type(key, where, _HOW_TO_DERIVE)
            keys.append(key)
        return cls(*keys)

    def check(self, document: object, *, key: str) -> None:
        """Refuses a manifest that none of the keys signed as it is.

        Args:
            document: The same parsed document that is validated afterwards: two readings of the same bytes may
                differ, where a member occurs twice.
            key: Where it was found, for the message.

        Raises:
            FormatError: If it has no signature, one by another key, or one of other content.
        """
        from cryptography.exceptions import InvalidSignature

        if not isinstance(document, dict):
            raise FormatError(
                f"{key} is not a manifest: expected an object, found {shortened(document)}",
                hint="somebody else wrote into the registry; restore the document from a backup",
            )
        key_id, value = self._signature(document.get(MEMBER), key)
        try:
            self._keys[key_id].verify(value, _covered(document))
        except InvalidInputError as error:
            raise FormatError(f"{key} is not what was signed: {error.message}", hint=f"{_WHO}; {_RESTORE}") from None
        except InvalidSignature:
            raise FormatError(
                f"{key} is not what was signed: the signature by key {key_id} is of other content",
                hint=f"{_WHO}; {_RESTORE}",
            ) from None

    def _signature(self, signature: Any, key: str) -> tuple[str, bytes]:
        """The id of a key that is known, and the bytes that it shall have made."""
        known = f"a signature by {' or '.join(self.key_ids)}"
        if signature is None:
            raise FormatError(
                f"{key} has no signature, expected {known}",
                hint=f"it was published without {SIGNING_KEY_VARIABLE}, or by somebody who has no key; "
                "package the model anew with the key and --force, or restore the document from a backup",
            )
        if not isinstance(signature, dict):
            raise _malformed(key, f"expected an object, found {shortened(signature)}")
        if signature.get("algorithm") != ALGORITHM:
            raise FormatError(
                f"{key} has a signature of another algorithm: expected {ALGORITHM!r}, "
                f"found {shortened(signature.get('algorithm'))}",
                hint=f"install the Slipway that wrote it, or a newer one; if there is none, {_WHO}",
            )
        # The signature does not cover itself, so there is no room in it for what nobody signed.
        if set(signature) != _MEMBERS:
            raise _malformed(
                key, f"expected the members {', '.join(sorted(_MEMBERS))}, found {shortened(sorted(signature))}"
            )
        key_id = signature["key_id"]
        if not isinstance(key_id, str) or key_id not in self._keys:
            raise FormatError(
                f"{key} is signed by a key that is not trusted here: expected {known}, found {shortened(key_id)}",
                hint=f"if the key is one of yours, add its public key to the file of {PUBLIC_KEY_VARIABLE}; "
                f"if not, somebody else wrote into the registry: {_RESTORE}",
            )
        return key_id, _decoded(signature["value"], key)


def load_keys(environ: Mapping[str, str]) -> tuple[Signer | None, Verifier | None]:
    """Reads the keys that the environment names.

    A variable that is set but empty is refused: a template that went wrong must not turn signatures off.

    Args:
        environ: With the paths of a private key in SLIPWAY_SIGNING_KEY and of public ones in SLIPWAY_PUBLIC_KEY.

    Returns:
        What signs and what checks; None for each whose variable is not set.

    Raises:
        InvalidInputError: If a file cannot be used, or the public keys do not include the signing key's: nobody
            there could read what would be published.
    """
    signing_path = _path_in(environ, SIGNING_KEY_VARIABLE)
    public_path = _path_in(environ, PUBLIC_KEY_VARIABLE)
    signer = verifier = None
    try:
        variable = SIGNING_KEY_VARIABLE
        if signing_path:
            signer = Signer.from_file(signing_path)
        variable = PUBLIC_KEY_VARIABLE
        if public_path:
            verifier = Verifier.from_file(public_path)
    except InvalidInputError as error:
        raise InvalidInputError(f"{variable}: {error.message}", hint=error.hint) from None
    if signer and verifier and signer.key_id not in verifier.key_ids:
        raise InvalidInputError(
            f"{PUBLIC_KEY_VARIABLE}: {public_path} does not have the public key of {SIGNING_KEY_VARIABLE}: "
            f"expected {signer.key_id}, found {', '.join(verifier.key_ids)}",
            hint=f"add it, or what is published here cannot be read; {_HOW_TO_DERIVE}",
        )
    return signer, verifier


def _path_in(environ: Mapping[str, str], variable: str) -> Path | None:
    if variable not in environ:
        return None
    if not environ[variable]:
        raise InvalidInputError(
            f"{variable} is empty, expected the path of a PEM file", hint="unset it where no signatures are wanted"
        )
    return Path(environ[variable])


def _covered(document: Mapping[str, Any]) -> bytes:
    """What is signed: the document without its signature, in the one form it has."""
    content = {name: value for name, value in document.items() if name != MEMBER}
    try:
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidInputError(f"it has no canonical JSON: {error}") from None
    return _CONTEXT + canonical.encode("ascii")


def _key_id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _pem_blocks(path: Path) -> list[tuple[str, bytes]]:
    """Label and text of each block; none may be cut short, or a key would be missing without a word."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(
            f"{path} cannot be read: {error.strerror or error}", hint="check the path, the mount and the permissions"
        ) from None
    blocks = [(match[1].decode("ascii"), match[0]) for match in _PEM_BLOCK.finditer(data)]
    begun = data.count(b"-----BEGIN ")
    if begun != len(blocks):
        raise InvalidInputError(
            f"{path} is damaged: {begun} PEM blocks begin, {len(blocks)} are complete", hint="copy it once more"
        )
    return blocks


def _loaded(load: Callable[[], _Key], where: str, hint: str) -> _Key:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return load()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The library's own words stay out: they may be about the content of a secret.
        raise InvalidInputError(f"{where} has no key that can be read, expected Ed25519", hint=hint) from None


def _other_type(key: object, where: str, hint: str) -> InvalidInputError:
    found = type(key).__name__.removesuffix("PrivateKey").removesuffix("PublicKey")
    return InvalidInputError(f"{where} has a key of another type: expected Ed25519, found {found}", hint=hint)


def _decoded(value: Any, key: str) -> bytes:
    try:
        decoded = base64.b64decode(value) if isinstance(value, str) else b""
    except ValueError:
        decoded = b""
    # Encoded once more, because the decoder passes over what is no base64.
    if len(decoded) != _VALUE_BYTES or base64.b64encode(decoded).decode("ascii") != value:
        raise _malformed(key, f"expected {_VALUE_BYTES} bytes in base64 as its value, found {shortened(value)}")
    return decoded


def _malformed(key: str, why: str) -> FormatError:
    return FormatError(f"{key} has a signature that cannot be read: {why}", hint=f"{_WHO}; {_RESTORE}")


def _enumerated(labels: list[str]) -> str:
    return ", ".join(labels) or "no PEM block"
