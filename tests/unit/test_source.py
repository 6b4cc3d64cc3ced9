"""Telling what a trained model is before anything loads it; all files here are built by hand."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from model_registry.errors import InvalidInputError
from model_registry.servable import PayloadFile, Source, Variant
from model_registry.source import describe_source, digest_source, inspect_source

HDF5 = b"\x89HDF\r\n\x1a\n" + b"\0" * 40
MODEL = {"metadata.json": b"{}", "config.json": b"{}", "model.weights.h5": HDF5}


def member(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def archive(*more: tuple[str | zipfile.ZipInfo, bytes], without: Iterable[str] = (), method: int = 0) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", compression=method) as file:
        warnings.simplefilter("ignore", UserWarning)  # zipfile warns of the duplicates made on purpose
        for name, data in [*((name, data) for name, data in MODEL.items() if name not in without), *more]:
            file.writestr(name, data)
    return buffer.getvalue()


def patched(data: bytes, name: bytes, offset: int, value: bytes) -> bytes:
    """Changes a member's entry in the table of contents; offsets are those of the central directory header."""
    at = data.rindex(name) - 46
    assert data[at : at + 4] == b"PK\x01\x02"
    return data[: at + offset] + value + data[at + offset + len(value) :]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def saved_model(path: Path) -> Path:
    (path / "variables").mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(b"graph")
    (path / "variables/variables.index").write_bytes(b"index")
    return path


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("m.keras", archive(), "keras"),
        ("m.keras", archive(method=zipfile.ZIP_DEFLATED), "keras"),
        ("m.keras", archive(("assets/", b""), ("assets/layers/lookup/vocabulary.txt", b"a\nb")), "keras"),
        ("m.keras", archive(("model.weights.npz", b"PK"), without=["model.weights.h5"]), "keras"),
        ("m.h5", HDF5, "h5"),
        ("m.hdf5", HDF5, "h5"),
    ],
)
def test_a_model_file_is_told_by_what_it_holds(tmp_path: Path, name: str, data: bytes, kind: str) -> None:
    assert inspect_source(write(tmp_path / name, data)) == kind


def test_a_saved_model_is_told_by_its_graph(tmp_path: Path) -> None:
    assert inspect_source(saved_model(tmp_path / "m")) == "saved_model"
    (tmp_path / "link").symlink_to(tmp_path / "m")
    assert inspect_source(tmp_path / "link") == "saved_model"


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("m.keras", b"", "is empty: expected a Keras model, found 0 bytes"),
        ("m.keras", archive()[:-30], "is a zip file cut short"),
        ("m.keras", archive()[:60], "is a zip file cut short"),
        ("m.keras", HDF5, "is an HDF5 file with the suffix '.keras': expected .h5 or .hdf5"),
        ("m.h5", archive(), "is a Keras 3 model (a zip file) with the suffix '.h5': expected .keras"),
        ("m.zip", archive(), "with the suffix '.zip': expected .keras"),
        ("m", HDF5, "is an HDF5 file with no suffix"),
        ("m.KERAS", archive(), "with the suffix '.KERAS': expected .keras"),
        ("m.keras", b"\x80\x04\x95pickle", "found a Python pickle, which runs code"),
        ("m.keras", b"\x08\x07\x12\x07pytorch", "found an ONNX or another protobuf file"),
        ("saved_model.pb", b"\x08\x01\x12\x07", "found a SavedModel's graph alone"),
        ("m.keras", b'{"class_name": "Functional"}', "found JSON"),
        ("m.keras", b"version https://git-lfs.github.com/spec/v1\n", "found a Git LFS pointer"),
        ("m.keras", b"<Error>AccessDenied</Error>", "found text: '<Error>AccessDenied</Error>'"),
        ("m.keras", "ü".encode() * 400, "found text: 'üü"),
        ("m.keras", b"x" + "ü".encode() * 400, "found text: 'xüü"),
        ("m.keras", b"\x1f\x8b\x08\0", "found a gzip file"),
        ("m.keras", b"x" * 257 + b"ustar\0" + b"\0" * 300, "found a tar archive"),
        ("m.keras", b"PK\x05\x06" + b"\0" * 18, "found an empty zip file"),
        ("m.keras", b"\x93NUMPY\x01\0", "found a NumPy array"),
        ("m.keras", b"\xfe\xff\0\0\1\2\3\4\5", "found a file that begins with fe ff 00 00 01 02 03 04"),
    ],
)
def test_what_is_no_model_is_named_as_what_it_is(tmp_path: Path, name: str, data: bytes, problem: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        inspect_source(write(tmp_path / name, data))
    assert problem in caught.value.message
    assert caught.value.hint


def zip_of(*names: str) -> bytes:
    return archive(*((name, b"x") for name in names), without=MODEL)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (zip_of("archive/data.pkl", "archive/version"), "found a PyTorch file"),
        (zip_of("x.npy", "y.npy"), "found a NumPy .npz file"),
        (zip_of("config.json", "metadata.json", "model.weights.json"), "found an archive of sharded weights"),
        (zip_of("m/config.json", "m/metadata.json", "m/model.weights.h5"), "found a zip of a folder"),
        (zip_of("a.txt", "b.txt"), "found a zip file holding 'a.txt', 'b.txt'; missing: config.json, metadata.json"),
        (archive(without=["config.json"]), "missing: config.json"),
        (archive(without=["metadata.json"]), "missing: metadata.json"),
        (archive(without=["model.weights.h5"]), "missing: model.weights.h5"),
    ],
)
def test_a_zip_that_is_no_keras_model_is_named_as_what_it_is(tmp_path: Path, data: bytes, problem: str) -> None:
    with pytest.raises(InvalidInputError, match="is no Keras model") as caught:
        inspect_source(write(tmp_path / "m.keras", data))
    assert problem in caught.value.message


WEIGHTS = b"model.weights.h5"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (archive(("../x", b"")), "'../x' has a name that leads out of the archive"),
        (archive(("assets/../../x", b"")), "has a name that leads out of the archive"),
        (archive(("/etc/x", b"")), "'/etc/x' has a name that leads out of the archive"),
        (archive(("C:/x", b"")), "'C:/x' has a name that leads out of the archive"),
        (archive(("..\\x", b"")), "has a name with a backslash or control characters"),
        (archive(("a\nb", b"")), "has a name with a backslash or control characters"),
        (archive(("assets//x", b"")), "has a name with empty parts"),
        (archive(("./x", b"")), "has a name with empty parts"),
        (archive((member("assets/x", stat.S_IFLNK | 0o777), b"/etc/passwd")), "'assets/x' is a symbolic link"),
        (archive((member("assets/x", stat.S_IFIFO | 0o600), b"")), "'assets/x' is neither a file nor a directory"),
        (archive(("config.json", b"{}")), "the member 'config.json' is there 2 times"),
        (archive(("assets", b""), ("assets/", b"")), "the member 'assets' is there 2 times"),
        (archive(("assets/x", b"a" * 99), method=zipfile.ZIP_BZIP2), "is compressed by method 12"),
        (patched(archive(), WEIGHTS, 8, b"\x01\0"), "'model.weights.h5' is encrypted"),
        (patched(archive(), WEIGHTS, 24, struct.pack("<I", 1 << 30)), "says it has 1,073,741,824 bytes, stores 48"),
        (patched(archive(), WEIGHTS, 20, struct.pack("<II", 1 << 30, 1 << 30)), "says it has 1,073,741,824 bytes in a"),
        (
            patched(archive(method=zipfile.ZIP_DEFLATED), WEIGHTS, 24, struct.pack("<I", 1 << 30)),
            ": a decompression bomb",
        ),
    ],
)
def test_an_archive_that_keras_never_wrote_is_refused(tmp_path: Path, data: bytes, problem: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        inspect_source(write(tmp_path / "m.keras", data))
    assert problem in caught.value.message


def test_a_name_cut_by_a_nul_character_is_refused(tmp_path: Path) -> None:
    data = archive(("assets/x~y", b"")).replace(b"assets/x~y", b"assets/x\0y")
    with pytest.raises(InvalidInputError, match="control characters"):
        inspect_source(write(tmp_path / "m.keras", data))


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    data = archive(("assets/a", b"a" * 4000), ("assets/b", b"b"))
    sizes = struct.pack("<II", 4000, 4000)
    first = data.index(b"PK\x03\x04", data.index(b"metadata.json") + 1)
    data = patched(patched(data, b"assets/b", 20, sizes), b"assets/b", 42, struct.pack("<I", first))
    with pytest.raises(InvalidInputError, match="its members overlap"):
        inspect_source(write(tmp_path / "m.keras", data))


def test_a_huge_table_of_contents_is_not_read(tmp_path: Path) -> None:
    data = archive(*((f"assets/{number}".ljust(65_000, "x"), b"") for number in range(130)))
    with pytest.raises(InvalidInputError, match="is a broken zip file: its table of contents says it has"):
        inspect_source(write(tmp_path / "m.keras", data))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=6), st.floats(0, 1))
def test_a_damaged_archive_is_invalid_input(tmp_path: Path, damage: list[tuple[float, bytes]], length: float) -> None:
    data = bytearray(archive(("assets/x", b"abc")))
    for place, value in damage:
        at = int(place * (len(data) - len(value)))
        data[at : at + len(value)] = value
    keep = len(data) if length > 0.5 else int(length * 2 * len(data))
    message = str(tmp_path)
    try:
        inspect_source(write(tmp_path / "m.keras", bytes(data[:keep])))
    except InvalidInputError as error:
        message = error.message
    assert str(tmp_path) in message


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=600), st.sampled_from(["m.keras", "m.h5", "saved_model.pb", "m"]))
@example(HDF5, "m.h5")
def test_any_bytes_are_a_model_or_invalid_input(tmp_path: Path, data: bytes, name: str) -> None:
    try:
        found = inspect_source(write(tmp_path / name, data))
    except InvalidInputError:
        return
    assert (found, name) == ("h5", "m.h5") and data.startswith(HDF5[:8])  # what follows its magic only h5py knows


def test_a_model_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for function in (inspect_source, digest_source):
        for path, problem in (
            (tmp_path / "none.keras", "there is no model at"),
            (tmp_path / "pipe", "is neither a file nor a directory"),
            (tmp_path / "loop", "cannot be read: Too many levels of symbolic links"),
            (Path("a\0b"), "cannot be read"),
        ):
            with pytest.raises(InvalidInputError) as caught:
                function(path)
            assert problem in caught.value.message


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ([], "found an empty directory"),
        (["1/saved_model.pb", "2/saved_model.pb"], "found it one level below, in 1, 2"),
        (["config.json", "metadata.json", "model.weights.h5"], "found a Keras model saved with zipped=False"),
        (["checkpoint", "ckpt-1.index"], "found a checkpoint"),
        (["saved_model.pbtxt"], "found saved_model.pbtxt"),
        (["a.keras", "notes.txt"], "found the files a.keras"),
        (["notes.txt"], "found 'notes.txt'"),
    ],
)
def test_a_directory_that_is_no_saved_model_is_named(tmp_path: Path, files: list[str], problem: str) -> None:
    for name in files:
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).touch()
    (tmp_path / "m").mkdir(exist_ok=True)
    with pytest.raises(InvalidInputError, match=r"expected saved_model\.pb in it") as caught:
        inspect_source(tmp_path / "m")
    assert problem in caught.value.message


def test_a_files_digest_is_its_sha256(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    path = write(tmp_path / "m.h5", data)
    assert digest_source(path) == (hashlib.sha256(data).hexdigest(), 3_000_000)
    (tmp_path / "link.h5").symlink_to(path)
    assert digest_source(tmp_path / "link.h5") == digest_source(path)


def test_a_directorys_digest_is_that_of_a_variant(tmp_path: Path) -> None:
    files = {"saved_model.pb": b"graph", "variables/variables.index": b"index"}
    variant = Variant(
        "native", tuple(PayloadFile(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items())
    )
    path = saved_model(tmp_path / "m")
    assert digest_source(path) == (variant.digest, 10)
    (tmp_path / "link").symlink_to(path)
    assert digest_source(tmp_path / "link") == (variant.digest, 10)


def change_content(path: Path) -> None:
    (path / "saved_model.pb").write_bytes(b"Graph")


def change_name(path: Path) -> None:
    (path / "variables/variables.index").rename(path / "variables/variables.data")


def add_a_file(path: Path) -> None:
    (path / "assets.txt").touch()


@pytest.mark.parametrize("change", [change_content, change_name, add_a_file])
def test_a_directorys_digest_changes_with(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = saved_model(tmp_path / "m")
    before = digest_source(path)
    change(path)
    assert digest_source(path)[0] != before[0]


def link_a_file(path: Path) -> None:
    (path / "assets").symlink_to("/etc/hostname")


def link_a_directory(path: Path) -> None:
    (path / "assets").symlink_to("/etc")


def add_a_pipe(path: Path) -> None:
    os.mkfifo(path / "assets")


def add_a_line_break(path: Path) -> None:
    (path / "a\nb").touch()


def nest(path: Path) -> None:
    (path / "/".join("d" * 40)).mkdir(parents=True)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (link_a_file, "holds a symbolic link, 'assets'"),
        (link_a_directory, "holds a symbolic link, 'assets'"),
        (add_a_pipe, "'assets' is neither a file nor a directory"),
        (add_a_line_break, "holds a file with an unprintable name"),
        (nest, "is nested more than 32 levels deep"),
    ],
)
def test_a_directory_with_more_than_files_is_refused(
    tmp_path: Path, change: Callable[[Path], None], problem: str
) -> None:
    path = saved_model(tmp_path / "m")
    change(path)
    with pytest.raises(InvalidInputError) as caught:
        describe_source(path)
    assert problem in caught.value.message


def test_a_source_is_described_for_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = archive()
    write(tmp_path / "m.keras", data)
    monkeypatch.chdir(tmp_path)
    sha256 = hashlib.sha256(data).hexdigest()
    assert describe_source(Path("m.keras")) == Source(str(tmp_path / "m.keras"), "keras", sha256, len(data))
    assert describe_source(Path("m.keras"), uri="s3://b/m.keras").uri == "s3://b/m.keras"
