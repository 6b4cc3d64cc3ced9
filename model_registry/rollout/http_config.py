"""How to log in at Prometheus: a file as Prometheus' own tools take it, `promtool --http.config.file`.

https://prometheus.io/docs/prometheus/latest/configuration/configuration/#http_config, of which `authorization` and
`basic_auth` are read. Certificates are the matter of SSL_CERT_FILE, proxies of HTTPS_PROXY.

    authorization: {credentials_file: /var/run/secrets/prometheus/token}

    basic_auth: {username: slipway, password_file: password}
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from model_registry import plain_yaml
from model_registry.errors import InvalidInputError
from model_registry.spec_errors import refused

_KIND = plain_yaml.Kind(
    noun="HTTP configuration",
    usual="http.yaml",
    option="--http-config",
    required="authorization",
    example="authorization: {credentials_file: token}",
)
_EXPECTED = "expected `authorization` with `credentials` or `credentials_file`, or `basic_auth`, and nothing else"
_LARGEST = 1 << 16
_Text = Annotated[str, StringConstraints(min_length=1, max_length=_LARGEST)]
# RFC 9110, section 5.5: what a header may hold without its line being ended, or read otherwise.
_HEADER = re.compile(r"[\x20-\x7e]+")


@dataclass(frozen=True)
class Login:
    """What is sent with a question, and what of that nobody may read.

    Attributes:
        headers: That are sent.
        secrets: All that gives access, alone or as a part of a header.
    """

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def redacted(self, text: str) -> str:
        """A text without the secrets, in whichever way an answer quotes them.

        It has to be whole: of a secret that was cut, what is left is not known for one.
        """
        spelled = {
            one
            for secret in self.secrets
            for one in (secret, json.dumps(secret)[1:-1], html.escape(secret), quote(secret, safe=""), quote(secret))
        }
        if not spelled:
            return text
        longest_first = sorted(spelled, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, longest_first)), "...", text)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Authorization(_Strict):
    """A header `Authorization`.

    Attributes:
        type: Its scheme.
        credentials: What follows it.
        credentials_file: Where that lies; read at every question, since tokens are renewed.
    """

    type: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,50}$")] = "Bearer"
    credentials: _Text | None = Field(None, repr=False)
    credentials_file: _Text | None = None

    @model_validator(mode="after")
    def _one(self) -> Authorization:
        if (self.credentials is None) == (self.credentials_file is None):
            raise refused("expected one of `credentials` and `credentials_file`")
        return self


class BasicAuth(_Strict):
    """A user and a password.

    Attributes:
        username: The user.
        password: The password.
        password_file: Where that lies; read at every question.
    """

    username: _Text
    password: _Text | None = Field(None, repr=False)
    password_file: _Text | None = None

    @model_validator(mode="after")
    def _one(self) -> BasicAuth:
        if (self.password is None) == (self.password_file is None):
            raise refused("expected one of `password` and `password_file`")
        return self


class HttpConfig(_Strict):
    """How to log in; not at all where both are left out.

    Attributes:
        authorization: By a token.
        basic_auth: By a password.
    """

    authorization: Authorization | None = None
    basic_auth: BasicAuth | None = None
    _folder: Path = Path()

    @model_validator(mode="after")
    def _at_most_one(self) -> HttpConfig:
        if self.authorization and self.basic_auth:
            raise refused("expected `authorization` or `basic_auth`, found both")
        return self

    def login(self) -> Login:
        """What is sent with a question.

        Raises:
            InvalidInputError: If a file that is named cannot be read, or holds what no header can.
        """
        if self.authorization:
            secret = self._secret(self.authorization.credentials, self.authorization.credentials_file)
            return _login(self.authorization.type, secret)
        if self.basic_auth:
            secret = self._secret(self.basic_auth.password, self.basic_auth.password_file)
            pair = f"{self.basic_auth.username}:{secret}".encode()
            return _login("Basic", base64.b64encode(pair).decode(), secret)
        return Login()

    def within(self, folder: Path) -> HttpConfig:
        """The same, whose files are named from a folder."""
        found = self.model_copy()
        found._folder = folder
        return found

    def _secret(self, text: str | None, file: str | None) -> str:
        if file is not None:
            path = self._folder / file
            try:
                with path.open("rb") as opened:
                    text = opened.read(_LARGEST).decode().strip()
            except (OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else "it is no text"
                raise InvalidInputError(f"what to log in with cannot be read: {path}: {why}") from None
        if not text or not _HEADER.fullmatch(text):
            where = f" of {file}" if file else ""
            raise InvalidInputError(f"the password or token{where} is empty, or has characters that none can have")
        return text


def load_http_config(path: Path) -> HttpConfig:
    """Reads a file that tells how to log in.

    Raises:
        InvalidInputError: If it, or a file that it names, cannot be read, or it asks for anything else.
    """
    try:
        document = plain_yaml.parse(plain_yaml.read(path, _KIND), path.name, _KIND)
    except InvalidInputError as error:
        # Somebody may have named the file with the token itself.
        raise InvalidInputError(error.message.partition(", found the text")[0], hint=_EXPECTED) from None
    try:
        config = HttpConfig.model_validate(document.content)
    except ValidationError as error:
        # Not what was found, as elsewhere: it may be a password.
        problems = [
            f"{'.'.join(map(str, one['loc'])) or path.name}: {one['msg']}"
            for one in error.errors(include_url=False, include_input=False)
        ]
        raise InvalidInputError(f"{path.name} is no {_KIND.noun}: {'; '.join(problems)}", hint=_EXPECTED) from None
    config = config.within(path.absolute().parent)
    config.login()
    return config


def _login(scheme: str, credentials: str, *secrets: str) -> Login:
    header = f"{scheme} {credentials}"
    return Login({"Authorization": header}, (header, credentials, *secrets))
