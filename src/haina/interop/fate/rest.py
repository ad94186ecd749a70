"""The REST interface of a FATE Flow server: one call, one answer that was looked at, or an error in FATE's words.

FATE Flow answers HTTP status 200 to all, and says in the body whether it worked: `code` and `message` (2.x, `/v2`), `retcode` and `retmsg` (1.x,
`/v1`).

The traps: it has no transport security of its own, and whoever reaches it runs jobs on the rows there; so plain HTTP goes to this machine only,
unless the caller insists. A call is made once and never repeated, for a job submitted twice trains twice; a redirect is no answer.
"""

from __future__ import annotations

import ipaddress
import json
import ssl
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit

from haina.errors import ConfigError, HainaError, Unreachable

Json = dict[str, Any]

#: An answer is at most this long; the model of a million features is 25 MB.
_LONGEST = 64 << 20
_CONNECT = 10.0


class FlowError(HainaError):
    """FATE Flow refused, or a job of it failed.

    Args:
        what: in FATE's words.
        code: FATE's number; 0 where it gave none.
    """

    def __init__(self, what: str, code: int = 0, *, remedy: str = "") -> None:
        self.code = code
        super().__init__(what, remedy=remedy)


class Rest:
    """Calls of one server.

    Args:
        url: `http://127.0.0.1:9380` on this machine, `https://HOST:PORT` elsewhere.
        insecure: allow plain HTTP to other machines.
        timeout: seconds without a byte after which it counts as gone.
        version: of its REST interface.

    Raises:
        ConfigError: the URL is none, or plain HTTP to another machine; urllib3 is not installed.
    """

    def __init__(
        self, url: str, *, insecure: bool = False, timeout: float = 60.0, version: Literal[1, 2] = 2
    ) -> None:
        try:
            import urllib3
        except ImportError as error:
            raise ConfigError(
                "FATE Flow is reached with urllib3, which is not installed",
                remedy="Install it: pip install 'haina[node]'",
            ) from error
        host, port, secure = _address(url, insecure)
        options: dict[str, Any] = {
            "retries": False,
            "timeout": urllib3.Timeout(connect=min(_CONNECT, timeout), read=timeout),
        }
        self._pool = (
            urllib3.HTTPSConnectionPool(host, port, ssl_context=ssl.create_default_context(), **options)
            if secure
            else urllib3.HTTPConnectionPool(host, port, **options)
        )
        self.url, self.version = url, version

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def call(self, method: Literal["GET", "POST"], path: str, said: Mapping[str, Any]) -> Json:
        """Make a call.

        Args:
            method: GET sends `said` as a query, POST as JSON.
            path: without the version, such as `job/submit`.
            said: what to say.

        Returns:
            The answer.

        Raises:
            FlowError: FATE Flow said no.
            Unreachable: no answer of FATE Flow came.
        """
        import urllib3

        target = f"/v{self.version}/{path}"
        body = None
        if method == "GET":
            target += "?" + urlencode(said)
        else:
            body = json.dumps(said, allow_nan=False).encode()
        try:
            response = self._pool.urlopen(
                method,
                target,
                body=body,
                headers={"Content-Type": "application/json", "User-Agent": "haina"},
                redirect=False,
                preload_content=False,
            )
            try:
                data = response.read(_LONGEST + 1)
            finally:
                response.close()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(
                f"FATE Flow at {self.url} did not answer ({_words(error)})", remedy="Is it running there?"
            ) from error
        return self._checked(response.status, data)

    def _checked(self, status: int, data: bytes) -> Json:
        strange = Unreachable(
            f"{self.url} does not answer like FATE Flow (HTTP status {status})",
            remedy=f"Is it FATE Flow {self.version}.x? Its port is 9380 unless it was changed",
        )
        if len(data) > _LONGEST:
            raise strange
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            raise strange from None
        code, message = ("code", "message") if self.version == 2 else ("retcode", "retmsg")
        if not isinstance(answer, dict) or type(answer.get(code)) is not int:
            raise strange
        if answer[code]:
            more = answer.get("data")
            said = str(answer.get(message)) + (f" {json.dumps(more)}" if more else "")
            raise FlowError(f"FATE Flow says {answer[code]}: {said[:2000]}", answer[code])
        return answer


def _address(url: str, insecure: bool) -> tuple[str, int, bool]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if (
        not host
        or parts.scheme not in ("http", "https")
        or parts.path not in ("", "/")
        or parts.query
        or parts.username
    ):
        raise ConfigError(
            f"{url!r} is no address of FATE Flow", allowed="http://127.0.0.1:9380, or https://HOST:PORT"
        )
    secure = parts.scheme == "https"
    if not secure and not insecure and not _here(host):
        raise ConfigError(
            f"{url} is another machine, and plain HTTP would send jobs there for all to read and change",
            allowed="https, or http to this machine",
            remedy="Tunnel to it (ssh -L 9380:127.0.0.1:9380 HOST), or say --insecure",
        )
    return host, port or (443 if secure else 80), secure


def _here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _words(error: BaseException) -> str:
    """The innermost reason: urllib3 wraps it several times."""
    inner = error.__cause__ or next((part for part in error.args if isinstance(part, BaseException)), None)
    if inner is not None:
        return _words(inner)
    said = getattr(error, "strerror", None)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
