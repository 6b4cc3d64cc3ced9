"""Trained models as a trainer leaves them in a bucket, and registries that have seen some of them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import boto3

from model_registry.registry import Registry
from model_registry.servable import Source
from tests.support.drafts import make_draft, make_payload
from tests.support.fixtures_s3 import Bucket


class Trainer:
    """Writes trained models into a bucket, the package.yaml last."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket.name
        self._client = boto3.session.Session().client("s3")
        self.trained = f"s3://{bucket.name}/trained"

    def put(self, key: str, data: bytes) -> str:
        self._client.put_object(Bucket=self._bucket, Key=f"trained/{key}", Body=data)
        return f"{self.trained}/{key}"

    def hand_over(self, folder: str, model: Path | bytes, spec: str) -> str:
        """Uploads a model under the name that its spec gives it, and tells where."""
        name = spec.rsplit("source: ", 1)[-1].strip()
        if isinstance(model, bytes):
            self.put(f"{folder}/{name}", model)
        else:
            for file in [model] if model.is_file() else sorted(path for path in model.rglob("*") if path.is_file()):
                inside = "" if model.is_file() else f"/{file.relative_to(model).as_posix()}"
                self.put(f"{folder}/{name}{inside}", file.read_bytes())
        self.put(f"{folder}/package.yaml", spec.encode())
        return f"{self.trained}/{folder}/{name}"

    def remove(self, folder: str) -> None:
        found = self._client.list_objects_v2(Bucket=self._bucket, Prefix=f"trained/{folder}/").get("Contents", [])
        for item in found:
            self._client.delete_object(Bucket=self._bucket, Key=item["Key"])


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def publish_from(registry: Registry, tmp_path: Path, *, model: str, source: Source, identity: str = "a1") -> None:
    draft = replace(make_draft(model, identity), source=source)
    registry.publish(draft, {"native": make_payload(tmp_path / f"payload-{model}-{identity}")})


def refuse_from(registry: Registry, *, model: str, source: Source) -> None:
    registry.record_rejection(replace(make_draft(model), source=source), reason="parity")
