"""What an exception of the S3 client means to a caller. Pure, and knows the exceptions by name only.

Each class of botocore, boto3 and s3transfer is placed by the nearest of its bases in `_MEANINGS`;
an answer of the server is placed by its error code, and failing that by its HTTP status.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_registry.errors import ConflictError, InvalidInputError, NotFoundError, SlipwayError, StorageError


@dataclass(frozen=True)
class _Meaning:
    reason: str
    hint: str | None = None
    transient: bool = False


_KEYS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or AWS_PROFILE"
_NO_CREDENTIALS = _Meaning("no credentials were found, or they could not be read", _KEYS)
_UNREACHABLE = _Meaning(
    "the endpoint cannot be reached", "check AWS_ENDPOINT_URL, the network and the proxy settings", transient=True
)
_BROKEN_OFF = _Meaning("the connection broke off or the data arrived damaged", transient=True)
_NOT_S3 = _Meaning(
    "no S3 server answered, but perhaps a proxy or a login page",
    "check AWS_ENDPOINT_URL, the network and the proxy settings",
    transient=True,
)
_SETTINGS = _Meaning("the S3 client refuses its settings", "check the AWS_* variables and ~/.aws/config")
_ABORTED = _Meaning("the transfer was cancelled")

_MEANINGS = {
    "NoCredentialsError": _NO_CREDENTIALS,
    "PartialCredentialsError": _NO_CREDENTIALS,
    "CredentialRetrievalError": _NO_CREDENTIALS,
    "UnknownCredentialError": _NO_CREDENTIALS,
    "ProfileNotFound": _NO_CREDENTIALS,
    "MetadataRetrievalError": _NO_CREDENTIALS,
    "NoAuthTokenError": _NO_CREDENTIALS,
    "TokenRetrievalError": _NO_CREDENTIALS,
    "UnknownTokenProviderError": _NO_CREDENTIALS,
    "RefreshWithMFAUnsupportedError": _NO_CREDENTIALS,
    "SSOError": _NO_CREDENTIALS,
    "LoginError": _NO_CREDENTIALS,
    "SSLError": _Meaning("the TLS connection failed", "check AWS_CA_BUNDLE and the server's certificate"),
    "ProxyConnectionError": _UNREACHABLE,
    "ConnectionClosedError": _BROKEN_OFF,
    "ReadTimeoutError": _Meaning(
        "the endpoint does not answer", "check the server behind the endpoint", transient=True
    ),
    "ConnectionError": _UNREACHABLE,
    "HTTPClientError": _BROKEN_OFF,
    "IncompleteReadError": _BROKEN_OFF,
    "ChecksumError": _BROKEN_OFF,
    "FlexibleChecksumError": _BROKEN_OFF,
    "CapacityNotAvailableError": _Meaning("the client's own rate limit is reached", transient=True),
    "RetriesExceededError": _BROKEN_OFF,
    "CancelledError": _ABORTED,
    "NotS3Error": _NOT_S3,
    "ResponseParserError": _NOT_S3,
    "HTTPError": _BROKEN_OFF,  # urllib3's, while a body is read
    "BotoCoreError": _SETTINGS,
    "Boto3Error": _SETTINGS,
    "Exception": _Meaning("the S3 client failed"),
}

_CODES = {
    "NoSuchBucket": _Meaning("the bucket does not exist", "create it, or name another with --registry"),
    "InvalidBucketName": _Meaning("the bucket's name is not valid", "name another with --registry"),
    "InvalidAccessKeyId": _Meaning("the access key is not known to the server", _KEYS),
    "SignatureDoesNotMatch": _Meaning("the secret key is wrong", _KEYS),
    "InvalidToken": _Meaning("the session token is wrong", _KEYS),
    "ExpiredToken": _Meaning("the session token has expired", "get new credentials"),
    "RequestTimeTooSkewed": _Meaning("this machine's clock is wrong", "set the clock"),
    "AccessDenied": _Meaning("access is denied", "the key needs s3:ListBucket, GetObject, PutObject and DeleteObject"),
    "QuotaExceeded": _Meaning("the quota is used up", "free some space"),
    "MissingContentLength": _Meaning(
        "the server refuses checksums in trailers", "set AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
    ),
    "NotImplemented": _Meaning("the server lacks an operation", "it must support conditional writes"),
}
# What a server says of a body that is not what was sent.
DAMAGED = frozenset({"BadDigest", "IncompleteBody", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"})
_CODES |= dict.fromkeys(DAMAGED, _BROKEN_OFF)
_STATUSES = {
    401: _CODES["AccessDenied"],
    403: _CODES["AccessDenied"],
    411: _CODES["MissingContentLength"],
    501: _CODES["NotImplemented"],
    507: _Meaning("no space is left on the server", "free some space"),
}
_ABSENT = {"NoSuchKey", "NotFound", "404"}
_TRANSIENT_CODES = {
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
}


def translate(error: Exception, target: str) -> SlipwayError:
    """Says in our words what the S3 client or the server reported.

    Args:
        error: What was raised.
        target: What it was about, such as `s3://bucket/prefix/key`.
    """
    if isinstance(response := getattr(error, "response", None), dict):
        return _answer(response, target)
    names = [base.__name__ for base in type(error).__mro__]
    if "S3UploadFailedError" in names and isinstance(error.__cause__, Exception):
        return translate(error.__cause__, target)
    if "ParamValidationError" in names:
        return InvalidInputError(f"{target} cannot be used: {_words(error)}")
    meaning = next(_MEANINGS[name] for name in names if name in _MEANINGS)
    return _storage_error(meaning, target, _words(error))


def status_of(error: Exception) -> int:
    """The HTTP status the server answered with; 0 where it did not answer."""
    if not isinstance(response := getattr(error, "response", None), dict):
        return 0
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status if isinstance(status, int) else 0


def may_have_arrived(error: Exception) -> bool:
    """Whether the server may have done what it was asked: no try of it was answered by a refusal alone."""
    if not isinstance(response := getattr(error, "response", None), dict):
        return True  # nobody knows how often it was sent
    return bool(response.get("ResponseMetadata", {}).get("RetryAttempts")) or status_of(error) >= 500


def _answer(response: dict[str, dict[str, object]], target: str) -> SlipwayError:
    code = str(response.get("Error", {}).get("Code", ""))
    said = str(response.get("Error", {}).get("Message", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    status = status if isinstance(status, int) else 0
    if code in _ABSENT:
        return NotFoundError(f"{target} does not exist")
    if status == 412 or code == "PreconditionFailed":
        return ConflictError(f"{target} was written by somebody else")
    unknown = _Meaning(
        f"the server answered {code or status}",
        transient=code in _TRANSIENT_CODES or status in (408, 409, 429) or status >= 500,
    )
    return _storage_error(_CODES.get(code) or _STATUSES.get(status) or unknown, target, said)


def _storage_error(meaning: _Meaning, target: str, said: str) -> StorageError:
    message = f"{target}: {meaning.reason}" + (f": {said}" if said else "")
    return StorageError(message, hint=meaning.hint, transient=meaning.transient)


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
