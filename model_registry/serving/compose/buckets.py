"""An S3 server on this machine, for a registry to begin with. Pure.

It belongs to a profile: whoever has a bucket already starts the rest without it.
"""

from __future__ import annotations

from textwrap import indent

from model_registry.serving.compose.deployment import Deployment
from model_registry.serving.compose.writing import CONFINED, quoted

PROFILE = "registry"
S3_IMAGE = "minio/minio:RELEASE.2025-04-22T22-12-26Z"

# Without them it would take a user and a password that everybody knows.
_WITH_KEYS = """\
: "${MINIO_ROOT_USER:?set AWS_ACCESS_KEY_ID, to whatever it is to be}" \
"${MINIO_ROOT_PASSWORD:?set AWS_SECRET_ACCESS_KEY, to 8 characters or more}"; exec minio "$@"\
"""

_MAKE = """\
import sys, time, boto3, botocore.exceptions
s3 = boto3.client("s3")
for attempt in range(60):
    try:
        if sys.argv[1] not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
            s3.create_bucket(Bucket=sys.argv[1])
        sys.exit()
    except botocore.exceptions.EndpointConnectionError as error:
        print(error, file=sys.stderr)
        time.sleep(1)
sys.exit("the S3 server does not answer")
"""


def services(deployment: Deployment) -> str:
    """The server, and what makes the bucket."""
    return f"""\
  # An S3 server with the keys of whoever runs `docker compose`. Its data stays when everything is taken down.
  registry:
    profiles: [{PROFILE}]
    image: {S3_IMAGE}
    restart: unless-stopped
    environment:
      MINIO_ROOT_USER: "${{AWS_ACCESS_KEY_ID:-}}"
      MINIO_ROOT_PASSWORD: "${{AWS_SECRET_ACCESS_KEY:-}}"
    entrypoint: ["/bin/sh", "-c", {quoted(_WITH_KEYS)}, "minio"]
    command: [server, /data]
    volumes:
      - registry:/data
    ports:
      - "127.0.0.1:9000:9000"  # for `slipway package` and `promote` on this machine
    deploy:
      resources:
        limits: {{memory: 1g}}
{indent(CONFINED, "    ")}
  bucket:
    <<: *agent
    profiles: [{PROFILE}]
    restart: "no"
    depends_on:
      registry: {{condition: service_started}}
    entrypoint:
      - python
      - "-c"
      - |
{indent(_MAKE, "        ")}      - {quoted(deployment.bucket)}
    deploy:
      resources:
        limits: {{memory: 256m}}
"""
