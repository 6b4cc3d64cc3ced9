"""Signed manifests: what a signature covers, and every way in which a key or a signature is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydantic_core
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from model_registry.errors import FormatError, InvalidInputError
from model_registry.servable import PayloadFile, ServableVersion, Variant
from model_registry.signing import PUBLIC_KEY_VARIABLE, SIGNING_KEY_VARIABLE, Signer, Verifier, load_keys
from tests.support.drafts import make_draft

# The same in every process, for pytest-xdist collects the cases in several.
KEY = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"a key for tests").digest())
SIGNER = Signer(KEY)
VERIFIER = Verifier(KEY.public_key())


def private_pem(key: Any = KEY, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def public_pem(key: Any = KEY) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def write(directory: Path, data: bytes, name: str = "key.pem") -> Path:
    (directory / name).write_bytes(data)
    return directory / name


def manifest() -> dict[str, Any]:
    """A published version's document, no member of it empty, so that each can be tampered with."""
    files = (PayloadFile("saved_model.pb", 5, "1" * 64), PayloadFile("variables/variables.index", 7, "2" * 64))
    version = replace(
        make_draft(),
        version=3,
        created_at="2025-01-01T00:00:00Z",
        variants=(Variant("native", files),),
        missing={"tensorrt-fp16": "no GPU"},
        write_id="w1",
    )
    document = pydantic_core.from_json(version.to_json())
    document.pop("signature", None)
    return document


def signed(signer: Signer = SIGNER) -> dict[str, Any]:
    return (document := manifest()) | {"signature": signer.sign(document)}


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a document, objects and arrays among them."""
    if at:
        yield at
    if isinstance(value, (dict, list)):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(below, (*at, key))


def parent_of(document: Any, place: tuple[Any, ...]) -> Any:
    for key in place[:-1]:
        document = document[key]
    return document


def other_than(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    return value + "x" if isinstance(value, str) else "x"


def test_a_signed_manifest_passes() -> None:
    VERIFIER.check(signed(), key="key")


def test_a_signature_is_a_member_that_the_manifests_reader_passes_over() -> None:
    document = signed()

    stored = json.dumps(document).encode()

    raw = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert document["signature"].keys() == {"algorithm", "key_id", "value"}
    assert document["signature"]["algorithm"] == "ed25519"
    assert document["signature"]["key_id"] == SIGNER.key_id == hashlib.sha256(raw).hexdigest()[:16]
    assert ServableVersion.from_json(stored, key="key").version == 3


def test_the_signed_bytes_are_the_documented_ones() -> None:
    # Written out: what another program has to do to check a signature, today and after the next release.
    document = {"b": [1, 1.5, None], "a": "é", "signature": "whatever it was"}

    value = SIGNER.sign(document)["value"]

    KEY.public_key().verify(base64.b64decode(value), b'slipway-manifest-v1\n{"a":"\\u00e9","b":[1,1.5,null]}')


def test_signing_once_more_makes_the_same_signature() -> None:
    document = signed()

    assert SIGNER.sign(document) == document["signature"]


@pytest.mark.parametrize("place", list(places(manifest())), ids=lambda place: ".".join(map(str, place)))
def test_a_changed_or_removed_value_is_noticed(place: tuple[Any, ...]) -> None:
    changed, removed = signed(), signed()
    parent_of(changed, place)[place[-1]] = other_than(parent_of(changed, place)[place[-1]])
    del parent_of(removed, place)[place[-1]]

    for document in (changed, removed):
        with pytest.raises(FormatError, match="key is not what was signed"):
            VERIFIER.check(document, key="key")


@pytest.mark.parametrize(
    "place",
    [(), *(place for place in places(manifest()) if isinstance(parent_of(manifest(), (*place, None)), dict))],
    ids=lambda place: ".".join(map(str, place)) or "top",
)
def test_an_added_member_is_noticed(place: tuple[Any, ...]) -> None:
    document = signed()
    parent_of(document, (*place, None))["colour"] = "red"

    with pytest.raises(FormatError, match="key is not what was signed"):
        VERIFIER.check(document, key="key")


def test_a_field_of_a_newer_slipway_is_covered() -> None:
    document = manifest() | {"colour": "red"}
    document["signature"] = SIGNER.sign(document)
    VERIFIER.check(document, key="key")

    with pytest.raises(FormatError, match="key is not what was signed"):
        VERIFIER.check(document | {"colour": "blue"}, key="key")


@pytest.mark.parametrize(
    ("was", "becomes"), [(1, 1.0), (1, True), (0.0, -0.0), (None, False), ("1", 1), ("\u00e9", "e\u0301")]
)
def test_values_that_python_or_a_person_takes_for_equal_are_told_apart(was: Any, becomes: Any) -> None:
    signature = SIGNER.sign({"value": was})

    with pytest.raises(FormatError, match="key is not what was signed"):
        VERIFIER.check({"value": becomes, "signature": signature}, key="key")


def test_the_order_of_members_and_white_space_may_change() -> None:
    def reordered(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: reordered(value[name]) for name in reversed(value)}
        return [reordered(item) for item in value] if isinstance(value, list) else value

    document = reordered(signed())

    assert list(document) != list(signed())
    for stored in (json.dumps(document, indent=7), json.dumps(document, separators=(",", ":"), ensure_ascii=False)):
        VERIFIER.check(pydantic_core.from_json(stored), key="key")
        VERIFIER.check(json.loads(stored), key="key")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(), below, max_size=4),
    max_leaves=12,
)


@given(content=st.dictionaries(st.text(), JSON, max_size=4))
def test_whatever_is_signed_can_be_stored_and_read_back(content: dict[str, Any]) -> None:
    document = content | {"signature": SIGNER.sign(content)}

    for stored in (json.dumps(document), pydantic_core.to_json(document, indent=2)):
        VERIFIER.check(pydantic_core.from_json(stored), key="key")
        VERIFIER.check(json.loads(stored), key="key")


def test_a_signature_over_the_same_document_without_its_context_does_not_count() -> None:
    bare = json.dumps(manifest(), sort_keys=True, separators=(",", ":")).encode()
    value = base64.b64encode(KEY.sign(bare)).decode()

    with pytest.raises(FormatError, match="key is not what was signed"):
        VERIFIER.check(signed() | {"signature": signed()["signature"] | {"value": value}}, key="key")


def test_while_keys_rotate_both_count(tmp_path: Path) -> None:
    new = Ed25519PrivateKey.generate()
    path = write(tmp_path, b"# since March\n" + public_pem(new) + b"\n# until March\n" + public_pem())

    verifier = Verifier.from_file(path)

    assert verifier.key_ids == (Signer(new).key_id, SIGNER.key_id)
    verifier.check(signed(SIGNER), key="key")
    verifier.check(signed(Signer(new)), key="key")


def test_a_key_that_knows_the_others_id_cannot_sign_for_it() -> None:
    forged = signed(Signer(Ed25519PrivateKey.generate()))
    forged["signature"]["key_id"] = SIGNER.key_id

    with pytest.raises(FormatError, match=f"the signature by key {SIGNER.key_id} is of other content"):
        VERIFIER.check(forged, key="key")


@pytest.mark.parametrize("absent", [{}, {"signature": None}])
def test_a_manifest_without_a_signature_is_refused(absent: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match=f"key has no signature, expected a signature by {SIGNER.key_id}") as caught:
        VERIFIER.check(manifest() | absent, key="key")

    assert caught.value.hint is not None
    assert "published without SLIPWAY_SIGNING_KEY" in caught.value.hint


def test_a_signature_by_a_key_that_is_not_known_is_refused() -> None:
    stranger = Signer(Ed25519PrivateKey.generate())

    with pytest.raises(FormatError, match=f"not trusted here: .*{SIGNER.key_id}, found '{stranger.key_id}'"):
        VERIFIER.check(signed(stranger), key="key")


VALUE = signed()["signature"]["value"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"algorithm": "ed448"}, "another algorithm: expected 'ed25519', found 'ed448'"),
        ({"algorithm": "none"}, "another algorithm: expected 'ed25519', found 'none'"),
        ({"algorithm": ["ed25519"]}, "another algorithm: expected 'ed25519', found \\['ed25519'\\]"),
        ({"key_id": None}, "not trusted here: .*, found None"),
        ({"key_id": ["a"]}, "not trusted here: .*, found \\['a'\\]"),
        ({"key_id": "f" * 100_000}, "not trusted here: .*, found 'f+\\.\\.\\.f+'$"),
        ({"key_id": SIGNER.key_id.upper() + "F"}, "not trusted here"),
        ({"value": None}, "cannot be read: expected 64 bytes in base64 as its value, found None"),
        ({"value": 64}, "cannot be read: expected 64 bytes"),
        ({"value": ""}, "cannot be read: expected 64 bytes"),
        ({"value": "é" * 88}, "cannot be read: expected 64 bytes"),
        ({"value": "?" * 88}, "cannot be read: expected 64 bytes"),
        ({"value": VALUE[:-1]}, "cannot be read: expected 64 bytes"),
        ({"value": VALUE[:44] + "\n" + VALUE[44:]}, "cannot be read: expected 64 bytes"),
        ({"value": base64.b64encode(bytes(65)).decode()}, "cannot be read: expected 64 bytes"),
        ({"value": base64.b64encode(bytes(63)).decode()}, "cannot be read: expected 64 bytes"),
        # The last character before the padding has four bits that count for nothing.
        ({"value": base64.b64encode(bytes(64)).decode()[:-3] + "B=="}, "cannot be read: expected 64 bytes"),
        ({"value": base64.b64encode(bytes(64)).decode()}, "is not what was signed"),
        ({"note": "trust me"}, "cannot be read: expected the members algorithm, key_id, value, found"),
    ],
)
def test_a_damaged_signature_is_refused(change: dict[str, Any], problem: str) -> None:
    document = signed()
    document["signature"] |= change

    with pytest.raises(FormatError) as caught:
        VERIFIER.check(document, key="registry/digits/versions/3.json")

    assert caught.value.message.startswith("registry/digits/versions/3.json ")
    assert caught.value.hint
    with pytest.raises(FormatError, match=problem):
        raise FormatError(caught.value.message)


@pytest.mark.parametrize("absent", ["algorithm", "key_id", "value"])
def test_a_signature_that_lacks_a_member_is_refused_by_its_name(absent: str) -> None:
    document = signed()
    del document["signature"][absent]

    with pytest.raises(FormatError, match="algorithm"):
        VERIFIER.check(document, key="key")


@pytest.mark.parametrize("signature", ["text", [], [1], 7, True])
def test_a_signature_that_is_no_object_is_refused(signature: Any) -> None:
    with pytest.raises(FormatError, match="key has a signature that cannot be read: expected an object"):
        VERIFIER.check(signed() | {"signature": signature}, key="key")


@pytest.mark.parametrize("document", [None, [], "text", 7])
def test_what_is_no_object_is_no_manifest(document: Any) -> None:
    with pytest.raises(FormatError, match="key is not a manifest: expected an object"):
        VERIFIER.check(document, key="key")


@pytest.mark.parametrize("number", [math.nan, math.inf, 10**5000], ids=["nan", "infinity", "huge"])
def test_a_number_that_json_cannot_tell_is_refused(number: float) -> None:
    with pytest.raises(FormatError, match="key is not what was signed: it has no canonical JSON"):
        VERIFIER.check(signed() | {"measured": number}, key="key")
    with pytest.raises(InvalidInputError, match="it has no canonical JSON"):
        SIGNER.sign({"measured": number})


def test_a_document_nested_too_deeply_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(200_000):
        deep = [deep]

    with pytest.raises(FormatError, match="it has no canonical JSON"):
        VERIFIER.check(signed() | {"deep": deep}, key="key")


def test_checking_and_signing_leave_the_document_as_it_was() -> None:
    document = signed()
    before = deepcopy(document)

    VERIFIER.check(document, key="key")
    SIGNER.sign(document)

    assert document == before


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def test_keys_made_as_the_documentation_says_work(tmp_path: Path) -> None:
    private, public = tmp_path / "signing-key.pem", tmp_path / "public-key.pem"
    if shutil.which("openssl"):
        _openssl("genpkey", "-algorithm", "ed25519", "-out", private)
        _openssl("pkey", "-in", private, "-pubout", "-out", public)
    else:
        private.write_bytes(private_pem())
        public.write_bytes(public_pem())

    signer, verifier = load_keys({SIGNING_KEY_VARIABLE: str(private), PUBLIC_KEY_VARIABLE: str(public)})

    assert signer is not None and verifier is not None
    assert verifier.key_ids == (signer.key_id,)
    verifier.check(signed(signer), key="key")


def test_a_key_that_others_may_read_is_taken_as_secrets_are_mounted_so(tmp_path: Path) -> None:
    path = write(tmp_path, private_pem())
    path.chmod(0o444)

    assert Signer.from_file(path).key_id == SIGNER.key_id


def encrypted_pem() -> bytes:
    return KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase"))


EC = ec.generate_private_key(ec.SECP256R1())
X25519 = x25519.X25519PrivateKey.generate()
GARBLED = b"-----BEGIN %s-----\nMC4CAQAwBQYDK2VwBCIEIGdhcmJsZWQ=\n-----END %s-----\n"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (lambda: b"", "is no signing key: expected one PEM block PRIVATE KEY, found no PEM block"),
        (lambda: b"\xff\x00" * 100, "found no PEM block"),
        (public_pem, "found PUBLIC KEY"),
        (lambda: private_pem() * 2, "found PRIVATE KEY, PRIVATE KEY"),
        (lambda: private_pem(form=PrivateFormat.OpenSSH), "found OPENSSH PRIVATE KEY"),
        (lambda: private_pem(EC, PrivateFormat.TraditionalOpenSSL), "found EC PRIVATE KEY"),
        (lambda: private_pem(EC), "has a key of another type: expected Ed25519, found EC"),
        (lambda: private_pem(X25519), "has a key of another type: expected Ed25519, found X25519"),
        (encrypted_pem, "is encrypted, expected a private key without a passphrase"),
        (lambda: private_pem()[:-20], "is damaged: 1 PEM blocks begin, 0 are complete"),
        (lambda: GARBLED % (b"PRIVATE KEY", b"PRIVATE KEY"), "has no key that can be read"),
    ],
)
def test_a_file_that_is_no_signing_key_is_refused(tmp_path: Path, data: Callable[[], bytes], problem: str) -> None:
    path = write(tmp_path, data())

    with pytest.raises(InvalidInputError) as caught:
        load_keys({SIGNING_KEY_VARIABLE: str(path)})

    assert caught.value.message.startswith(f"SLIPWAY_SIGNING_KEY: {path}")
    assert problem in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (lambda: b"", "is no file of public keys: expected PEM blocks PUBLIC KEY, found no PEM block"),
        (private_pem, "has a private key, expected PEM blocks PUBLIC KEY alone, found PRIVATE KEY"),
        (lambda: public_pem() + private_pem(), "found PUBLIC KEY, PRIVATE KEY"),
        (encrypted_pem, "has a private key"),
        (lambda: GARBLED % (b"CERTIFICATE", b"CERTIFICATE"), "found CERTIFICATE"),
        (lambda: public_pem() + public_pem(EC), "block 2 has a key of another type: expected Ed25519, found EC"),
        (lambda: public_pem() + public_pem()[:-20], "is damaged: 2 PEM blocks begin, 1 are complete"),
        (lambda: public_pem()[:-20] + public_pem(), "is damaged: 2 PEM blocks begin, 1 are complete"),
        (lambda: GARBLED % (b"PUBLIC KEY", b"PUBLIC KEY"), "block 1 has no key that can be read"),
    ],
)
def test_a_file_that_has_not_only_public_keys_is_refused(
    tmp_path: Path, data: Callable[[], bytes], problem: str
) -> None:
    path = write(tmp_path, data())

    with pytest.raises(InvalidInputError) as caught:
        load_keys({PUBLIC_KEY_VARIABLE: str(path)})

    assert caught.value.message.startswith(f"SLIPWAY_PUBLIC_KEY: {path}")
    assert problem in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("variable", [SIGNING_KEY_VARIABLE, PUBLIC_KEY_VARIABLE])
def test_a_file_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path, variable: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{variable}: .*missing.pem cannot be read: No such file"):
        load_keys({variable: str(tmp_path / "missing.pem")})
    with pytest.raises(InvalidInputError, match=f"{variable}: .* cannot be read: Is a directory"):
        load_keys({variable: str(tmp_path)})


@pytest.mark.parametrize("variable", [SIGNING_KEY_VARIABLE, PUBLIC_KEY_VARIABLE])
def test_an_empty_variable_does_not_turn_signatures_off(variable: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{variable} is empty"):
        load_keys({variable: ""})


def test_each_variable_brings_its_own_side(tmp_path: Path) -> None:
    private, public = write(tmp_path, private_pem(), "private.pem"), write(tmp_path, public_pem(), "public.pem")

    assert load_keys({}) == (None, None)
    signer, nothing = load_keys({SIGNING_KEY_VARIABLE: str(private)})
    assert signer is not None and nothing is None
    nothing, verifier = load_keys({PUBLIC_KEY_VARIABLE: str(public)})
    assert nothing is None and verifier is not None


def test_a_signing_key_whose_public_key_is_not_among_the_others_is_refused(tmp_path: Path) -> None:
    other = Ed25519PrivateKey.generate()
    private, public = write(tmp_path, private_pem(), "private.pem"), write(tmp_path, public_pem(other), "public.pem")

    with pytest.raises(InvalidInputError, match=f"expected {SIGNER.key_id}, found {Signer(other).key_id}"):
        load_keys({SIGNING_KEY_VARIABLE: str(private), PUBLIC_KEY_VARIABLE: str(public)})


def secrets_of(key: Ed25519PrivateKey) -> set[str]:
    raw = key.private_bytes_raw()
    pem = private_pem(key).decode().splitlines()[1]
    return {raw.hex(), repr(raw)[2:-1], str(raw)[2:-1], base64.b64encode(raw).decode(), pem, pem[-24:]}


def test_a_signer_shows_no_more_than_its_id(tmp_path: Path) -> None:
    signer = Signer.from_file(write(tmp_path, private_pem()))

    shown = f"{signer!r} {signer} {vars(signer)} {signer.sign(manifest())}"

    assert f"Signer(key_id='{signer.key_id}')" in shown
    assert not [secret for secret in secrets_of(KEY) if secret in shown]


def test_a_signer_does_not_leave_its_process() -> None:
    # Prefect pickles what tasks are given and what they return, and stores it.
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(SIGNER)


@pytest.mark.parametrize(
    "wrong",
    [
        private_pem()[:-20],
        private_pem() * 2,
        private_pem().replace(b"PRIVATE KEY", b"ENCRYPTED PRIVATE KEY"),
        private_pem().replace(b"PRIVATE KEY", b"PUBLIC KEY"),
        private_pem().replace(b"MC4C", b"MC5C"),
    ],
    ids=["cut", "twice", "encrypted", "public", "garbled"],
)
def test_no_message_shows_a_key(tmp_path: Path, wrong: bytes) -> None:
    path = write(tmp_path, wrong)

    for variable in (SIGNING_KEY_VARIABLE, PUBLIC_KEY_VARIABLE):
        with pytest.raises(InvalidInputError) as caught:
            load_keys({variable: str(path)})
        shown = f"{caught.value!r} {caught.value} {caught.value.__cause__!r} {caught.value.__context__!r}"
        assert not [secret for secret in secrets_of(KEY) if secret in shown]


def test_without_keys_cryptography_is_not_imported() -> None:
    program = """if True:
        import sys
        from model_registry.signing import load_keys
        assert load_keys({}) == (None, None)
        assert not [name for name in sys.modules if name.partition(".")[0] == "cryptography"]
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
