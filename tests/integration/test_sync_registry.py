"""What a sync agent makes of a registry that cannot be trusted or reached, and of a disk that is full. No server."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from model_registry import paths
from model_registry.registry import Registry
from tests.support.drafts import CONTENT, make_payload
from tests.support.fault_proxy import Answer, Ask, Request, run_fault_proxy
from tests.support.fixtures_s3 import Bucket
from tests.support.sync_bench import ORIGIN, SyncBench

TENSORRT = "tensorrt-fp16-sm80"


@pytest.fixture
def on_s3(sync_bench: SyncBench, s3_bucket: Bucket) -> SyncBench:
    return replace(sync_bench, registry=Registry.open(s3_bucket.url))


@pytest.fixture(params=["local", "s3"])
def anywhere(request: pytest.FixtureRequest, sync_bench: SyncBench) -> SyncBench:
    if request.param == "local":
        return sync_bench
    found: SyncBench = request.getfixturevalue("on_s3")
    return found


def rewrite(bench: SyncBench, key: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Lets somebody write into the registry who should not."""
    store = bench.registry.store
    stored = store.get(key)
    document = json.loads(stored.data)
    change(document)
    store.put_if_match(key, json.dumps(document, indent=2).encode().ljust(2000), stored.etag)


def flip_bit(bench: SyncBench, version: int) -> None:
    store = bench.registry.store
    key = paths.payload("digits", "native", version) + "variables/variables.data-00000-of-00001"
    stored = store.get(key)
    flipped = bytes([stored.data[0] ^ 1]) + stored.data[1:]
    store.put_if_match(key, flipped, stored.etag)


def test_what_the_labels_name_is_brought_and_nothing_else(anywhere: SyncBench) -> None:
    anywhere.publish()
    anywhere.stable()
    anywhere.promote(anywhere.publish(), "canary")

    agent = anywhere.agent()

    agent.has(2, 3)
    found = anywhere.directory(2)
    assert {str(path.relative_to(found)) for path in found.rglob("*") if path.is_file()} == {*CONTENT}
    assert (found / "saved_model.pb").read_bytes() == b"2"
    assert sorted(path.name for path in found.parent.iterdir()) == ["2", "3"]
    assert "digits:2 downloaded, variant native: 20 bytes in" in agent.log


def test_only_the_models_and_labels_that_are_asked_for_are_followed(sync_bench: SyncBench) -> None:
    for model in ("digits", "faces"):
        sync_bench.stable(model)
    sync_bench.promote(sync_bench.publish(), "canary")

    agent = sync_bench.agent("--model=digits", "--label=stable")

    agent.has(1)
    assert {name: model.wanted for name, model in agent.report().models.items()} == {"digits": {"stable": 1}}
    assert sorted(path.name for path in (sync_bench.destination / "models").rglob("[0-9]*")) == ["1"]


def test_a_flipped_bit_is_never_given_a_number(anywhere: SyncBench) -> None:
    anywhere.stable()
    flip_bit(anywhere, 1)

    agent = anywhere.agent()

    failed = agent.fails(1)
    assert not failed.gave_up
    assert "variables.data-00000-of-00001 is not what was published" in failed.why
    assert not anywhere.directory(1).exists()
    agent.until(lambda: not list(anywhere.directory(1).parent.glob(".incoming*")), "nothing is left of it")
    flip_bit(anywhere, 1)
    agent.retry(1)
    agent.has(1)


def test_an_object_that_is_larger_than_published_is_not_brought(anywhere: SyncBench) -> None:
    anywhere.stable()
    key = paths.payload("digits", "native", 1) + "saved_model.pb"
    stored = anywhere.registry.store.get(key)
    anywhere.registry.store.put_if_match(key, stored.data + b"x" * 100_000, stored.etag)

    agent = anywhere.agent()

    assert "found 100,001 bytes" in agent.fails(1).why


def test_a_registry_that_goes_away_takes_nothing_with_it(sync_bench: SyncBench) -> None:
    sync_bench.stable()
    registry, away = sync_bench.folder / "registry", sync_bench.folder / "away"
    agent = sync_bench.agent()
    agent.has(1)
    written = sync_bench.config_file.read_bytes()

    registry.rename(away)

    agent.until(lambda: agent.model().problem, "the agent notices")
    assert agent.model().wanted == {"stable": 1}
    assert sync_bench.directory(1).is_dir()
    assert sync_bench.config_file.read_bytes() == written
    away.rename(registry)
    sync_bench.stable()
    agent.has(2)
    agent.until(lambda: not agent.model().problem, "all is well again")


def test_a_bucket_out_of_reach_is_told_once_and_waited_for(sync_bench: SyncBench, s3_bucket: Bucket) -> None:
    def refused(request: Request, ask: Ask) -> Answer:
        return Answer(403, (("Content-Type", "application/xml"),), b"<Error><Code>AccessDenied</Code></Error>")

    with run_fault_proxy(s3_bucket.server.endpoint) as proxy:
        bench = replace(sync_bench, registry=Registry.open(s3_bucket.url))
        bench.stable()
        agent = replace(bench, environ={"AWS_ENDPOINT_URL": proxy.endpoint}).agent()
        bench.agents = [agent]
        agent.has(1)

        proxy.inject(refused, times=4)
        agent.until(lambda: agent.report().registry_problem, "the agent notices")
        bench.stable()
        agent.has(2)

        assert agent.log.count("the registry is out of reach") == 1
        assert agent.log.count("the registry is back") == 1
        assert not agent.report().registry_problem


def test_one_broken_document_does_not_hold_up_the_other_models(anywhere: SyncBench) -> None:
    anywhere.stable()
    anywhere.stable("faces")
    agent = anywhere.agent()
    agent.has(1)

    rewrite(anywhere, paths.state("digits"), lambda state: state.update(labels={"stable": "one"}))
    anywhere.stable("faces")

    agent.has(2, name="faces")
    assert "registry/digits/state.json is not a state" in agent.model().problem
    assert agent.model().wanted == {"stable": 1}
    assert anywhere.directory(1).is_dir()


def test_a_revision_that_goes_backwards_changes_nothing(sync_bench: SyncBench) -> None:
    sync_bench.stable()
    state = sync_bench.folder / "registry" / "registry" / "digits" / "state.json"
    before = state.read_bytes()
    sync_bench.stable()
    agent = sync_bench.agent()
    agent.has(2)

    state.write_bytes(before)

    agent.until(lambda: "went backwards: expected 2 or higher, found 1" in agent.model().problem, "it is told")
    agent.kill()
    again = sync_bench.agent()
    again.until(lambda: "went backwards" in again.model().problem, "another agent notices too")
    assert not sync_bench.directory(1).exists()


def test_a_manifest_that_is_gone_fails_its_version_alone(sync_bench: SyncBench) -> None:
    sync_bench.stable()
    sync_bench.promote(sync_bench.publish(), "canary")
    sync_bench.registry.store.delete([paths.manifest("digits", 2)])

    agent = sync_bench.agent()

    assert "digits:2 has no manifest" in agent.fails(2).why
    agent.has(1)


def test_an_unsigned_version_is_not_brought_where_signatures_are_asked_for(sync_bench: SyncBench) -> None:
    sync_bench.stable()
    public = sync_bench.folder / "public-key.pem"
    public.write_bytes(
        Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    sync_bench.environ["SLIPWAY_PUBLIC_KEY"] = str(public)

    agent = sync_bench.agent()

    assert "has no signature" in agent.fails(1).why
    assert not sync_bench.directory(1).exists()


def test_the_first_variant_that_a_version_has_is_brought(sync_bench: SyncBench) -> None:
    payload = make_payload(sync_bench.folder / "payload")
    sync_bench.promote(sync_bench.publish_payload(payload, variant=TENSORRT))
    sync_bench.promote(sync_bench.publish(), "canary")

    agent = sync_bench.agent(f"--variant={TENSORRT}", "--variant=native")

    agent.has(1, 2)
    assert [(one.version, one.variant) for one in agent.model().versions] == [(1, TENSORRT), (2, "native")]


def test_no_variant_is_substituted(sync_bench: SyncBench) -> None:
    sync_bench.stable()

    agent = sync_bench.agent(f"--variant={TENSORRT}")

    failed = agent.fails(1)
    assert failed.why == f"it has no variant {TENSORRT}, only native; none is substituted"
    assert not failed.gave_up


def test_another_variant_takes_the_place_of_what_no_server_uses(sync_bench: SyncBench) -> None:
    sync_bench.promote(sync_bench.publish_payload(make_payload(sync_bench.folder / "payload"), variant=TENSORRT))
    first = sync_bench.agent()
    first.has(1)
    first.kill()

    agent = sync_bench.agent(f"--variant={TENSORRT}")

    agent.until(lambda: (one := agent.version(1)) and one.variant == TENSORRT, "the other variant is here")


def test_what_is_right_is_not_brought_again_though_the_notes_are_lost(sync_bench: SyncBench) -> None:
    sync_bench.stable()
    first = sync_bench.agent()
    first.has(1)
    first.kill()
    shutil.rmtree(sync_bench.destination / ".slipway")
    (sync_bench.directory(1) / "saved_model.pb").chmod(0o600)

    agent = sync_bench.agent()

    agent.has(1)
    assert "digits:1 was here already, variant native: every byte of it is right" in agent.log
    assert (sync_bench.directory(1) / "saved_model.pb").stat().st_mode & 0o777 == 0o644


def test_what_somebody_else_put_there_is_left_alone(sync_bench: SyncBench) -> None:
    sync_bench.stable()
    theirs = make_payload(sync_bench.directory(1))

    agent = sync_bench.agent()

    assert f"{theirs} is there already, and is not digits:1" in agent.fails(1).why
    assert (theirs / "saved_model.pb").read_bytes() == CONTENT["saved_model.pb"]


def test_what_is_damaged_and_not_in_use_is_brought_again(sync_bench: SyncBench) -> None:
    sync_bench.stable()
    agent = sync_bench.agent()
    agent.has(1)

    (sync_bench.directory(1) / "variables" / "variables.index").unlink()

    agent.until(lambda: agent.log.count("digits:1 downloaded") == 2, "it is brought again")
    agent.has(1)


def test_a_disk_that_would_be_too_full_is_refused_before(sync_bench: SyncBench) -> None:
    sync_bench.stable()

    agent = sync_bench.agent("--reserve=900000G")

    assert "the disk is nearly full: digits:1 takes 20 bytes" in agent.fails(1).why
    assert not list((sync_bench.destination / "models").glob("*/*"))


def test_a_download_that_hangs_does_not_hold_up_the_end(sync_bench: SyncBench, s3_bucket: Bucket) -> None:
    held, asked = threading.Event(), threading.Event()

    def hang(request: Request, ask: Ask) -> Answer:
        asked.set()
        held.wait(120)
        return ask(request)

    with run_fault_proxy(s3_bucket.server.endpoint) as proxy:
        bench = replace(sync_bench, registry=Registry.open(s3_bucket.url))
        bench.stable()
        proxy.inject(hang, lambda method, target: method == "GET" and "/native/" in target, times=100)
        agent = replace(bench, environ={"AWS_ENDPOINT_URL": proxy.endpoint}).agent()
        try:
            assert asked.wait(30)
            agent.until(lambda: (one := agent.version(1)) and one.state == "DOWNLOADING", "it is on its way")

            assert agent.end() == 0  # within less than the store's own patience

            assert not held.is_set()
        finally:
            held.set()
    assert list(bench.directory(1).parent.glob(".incoming-1-*"))
    bench.agent().has(1)
    assert not list(bench.directory(1).parent.glob(".incoming-*"))


def test_a_label_that_is_taken_away_while_no_agent_looks_is_noticed(sync_bench: SyncBench) -> None:
    sync_bench.stable()
    sync_bench.promote(1, "canary")
    first = sync_bench.agent()
    first.has(1)
    assert first.end() == 0

    sync_bench.registry.unlabel("digits", "canary", origin=ORIGIN)

    agent = sync_bench.agent()
    agent.until(lambda: agent.model().wanted == {"stable": 1}, "the label is gone")
