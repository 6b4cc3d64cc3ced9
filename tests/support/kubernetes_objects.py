"""The objects of a rendered file, found by kind and name, and what their parts refer to."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import kubernetes_validate
from ruamel.yaml import YAML

from model_registry.serving.fleet_file import parse_fleet
from model_registry.serving.kubernetes.settings import Settings
from model_registry.serving.kubernetes.whole import render

Object = dict[str, Any]

# It would read two files of schemas for each object, and one of them has all there are.
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)


@dataclass(frozen=True)
class Rendered:
    """A file with all its objects.

    Attributes:
        text: As it is written.
        objects: As a cluster reads it.
    """

    text: str
    objects: tuple[Object, ...]

    def of_kind(self, kind: str) -> dict[str, Object]:
        """The objects of a kind, by name."""
        return {one["metadata"]["name"]: one for one in self.objects if one["kind"] == kind}

    def pods(self, name: str) -> Object:
        """The template of a Deployment's pods."""
        template: Object = self.of_kind("Deployment")[name]["spec"]["template"]
        return template

    def selected(self, selector: Object) -> set[str]:
        """The Deployments whose pods have the labels."""
        labels = {name: self.pods(name)["metadata"]["labels"] for name in self.of_kind("Deployment")}
        return {name for name, found in labels.items() if selector.items() <= found.items()}


def validate(found: Object, version: str) -> None:
    """Holds an object against the schemas of a version of Kubernetes; what is the same text, once.

    Raises:
        kubernetes_validate.ValidationError: If that version would refuse it.
    """
    _validate(json.dumps(found, sort_keys=True), version)


@functools.cache
def _validate(text: str, version: str) -> None:
    kubernetes_validate.validate(json.loads(text), version, strict=True)


_rendered: dict[tuple[str, str], Rendered] = {}


def rendered(fleet_yaml: str, **settings: Any) -> Rendered:
    """Renders a fleet.yaml, for a bucket unless it says another registry; each once, for reading is slow."""
    key = (fleet_yaml, repr(settings))
    if key not in _rendered:
        file = parse_fleet(fleet_yaml.encode(), "fleet.yaml")
        text = render(file, Settings(**{"registry": "s3://models", **settings}))
        _rendered[key] = Rendered(text, tuple(YAML(typ="safe").load_all(text)))
    return _rendered[key]


def containers(template: Object) -> Iterator[Object]:
    """All containers of a pod."""
    yield from template["spec"]["initContainers"]
    yield from template["spec"]["containers"]


def container(template: Object, name: str) -> Object:
    """One of a pod's containers."""
    return next(one for one in containers(template) if one["name"] == name)


def port_of(found: Object, port: str | int) -> int:
    """The number that a container has under a port's name.

    Raises:
        StopIteration: If it has none.
    """
    numbers = {one["name"]: one["containerPort"] for one in found.get("ports", [])}
    return next(number for name, number in numbers.items() if port in (name, number))
