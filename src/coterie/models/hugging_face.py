"""Fetch a file from Hugging Face, or from a mirror that speaks like it, over plain HTTP.

The rules:

* ``GET {HF_ENDPOINT}/{repo}/resolve/{revision}/{file}``. ``HF_TOKEN`` goes along as a bearer, and onward through a
  redirect only to the same scheme, host and port: the file itself comes from a content network that needs none.
* A partial file is continued only where its strong entity tag is known (kept beside it in ``<file>.etag``): ``Range``
  with ``If-Range``. A 206 must begin where asked and speak of the expected size; a 200 means the server ignored the
  range or the file changed, and starts again.
* Never more than the expected size is written: an answer that announces or sends another size is refused at once.
* A broken line, a 408, a 429 and a 5xx are tried again, with growing pauses, until several tries in a row made no
  headway. Everything else is final.
"""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from email.message import Message
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote, urlsplit

from coterie.models.catalogue import HuggingFace
from coterie.models.errors import ModelError
from coterie.models.progress import CHUNK_BYTES, Progress
from coterie.version import __version__

_ENDPOINT: Final = "https://huggingface.co"
_TIMEOUT_S: Final = 30.0
_TRIES: Final = 5
_LONGEST_PAUSE_S: Final = 30.0
_HEADWAY_BYTES: Final = CHUNK_BYTES
"""A try that brought this much starts the count of failures anew."""

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})


class _BrokenOffError(Exception):
    """A failure that another try may not meet."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        self.after_s = after_s
        super().__init__(reason)


class _TokenKeeper(urllib.request.HTTPRedirectHandler):
    """Carries the bearer along a redirect within one origin, and nowhere else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:  # fmt: skip
        """Build the request that follows a redirect."""
        onward = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        if onward is not None and token is not None and _origin(onward.full_url) == _origin(req.full_url):
            onward.add_unredirected_header("Authorization", token)
        return onward


def fetch(
    source: HuggingFace,
    target: Path,
    size_bytes: int,
    progress: Progress,
    *,
    environ: Mapping[str, str],
    pause: Callable[[float], None],
) -> None:
    """Fill ``target`` up to ``size_bytes``, continuing what is there. Raises :class:`ModelError`, ``OSError``."""
    download = _Download(source, target, size_bytes, progress, environ)
    failures = 0
    while (before := download.done_bytes()) != size_bytes:
        try:
            download.attempt(before)
        except _BrokenOffError as fault:
            failures = 1 if download.done_bytes() - before >= _HEADWAY_BYTES else failures + 1
            if failures >= _TRIES:
                raise ModelError(
                    f"Downloading from {source} failed {failures} times in a row: {fault}.",
                    "Check the network and try again: what has arrived is kept.",
                ) from None
            pause(min(fault.after_s or 2.0 ** (failures - 1), _LONGEST_PAUSE_S))


class _Download:
    """One file on its way."""

    def __init__(
        self, source: HuggingFace, target: Path, size_bytes: int, progress: Progress, environ: Mapping[str, str]
    ) -> None:
        self._source = source
        self._target = target
        self._tag_file = target.with_name(f"{target.name}.etag")
        self._size_bytes = size_bytes
        self._progress = progress
        self._url = _url(source, environ.get("HF_ENDPOINT") or _ENDPOINT)
        self._token = environ.get("HF_TOKEN", "").strip()
        self._opener = urllib.request.build_opener(_TokenKeeper)

    def done_bytes(self) -> int:
        """Bytes on disk; a file that is longer than it can be is dropped."""
        if not self._target.exists():
            return 0
        length = self._target.stat().st_size
        if length <= self._size_bytes:
            return length
        self._drop()
        return 0

    def attempt(self, offset: int) -> None:
        """Make one request and keep what it brings; raises ``_BrokenOffError`` where that is not all."""
        tag = self._tag() if offset else None
        with self._open(offset if tag else 0, tag) as answer:
            continued = answer.status == http.client.PARTIAL_CONTENT
            self._check_extent(answer.headers, offset if continued else None, tag)
            if not continued:
                self._remember(answer.headers.get("etag", ""))
            self._receive(answer, offset if continued else 0)

    def _open(self, offset: int, tag: str | None) -> http.client.HTTPResponse:
        try:
            answer: http.client.HTTPResponse = self._opener.open(self._request(offset, tag), timeout=_TIMEOUT_S)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error.code, error.headers) from None
        except (ValueError, http.client.InvalidURL):
            # Text that cannot stand in a URL or a header; a URL that the server redirects to included.
            raise ModelError(f"{self._source} cannot be asked for.", "Check HF_ENDPOINT and HF_TOKEN.") from None
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(self._source, error) from None
        return answer

    def _request(self, offset: int, tag: str | None) -> urllib.request.Request:
        request = urllib.request.Request(self._url, headers={"User-Agent": f"coterie/{__version__}"})  # noqa: S310 - _url allows http(s) alone
        if self._token:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        if tag:
            request.add_header("Range", f"bytes={offset}-")
            request.add_header("If-Range", tag)
        return request

    def _refused(self, status: int, headers: Message) -> Exception:
        if status in _RETRIED:
            return _BrokenOffError(f"the server answered {status}", _seconds(headers.get("retry-after", "")))
        if status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._drop()
            return _BrokenOffError("the server has another file than before")
        if status in (401, 403):
            return ModelError(
                f"{self._source} may not be read (HTTP {status}).",
                "Set HF_TOKEN to a token that may read it.",
            )
        return ModelError(
            f"{self._source} has no {self._source.file} (HTTP {status}).",
            "Check HF_ENDPOINT, or update Coterie: its catalogue may be older than the repository.",
        )

    def _check_extent(self, headers: Message, offset: int | None, tag: str | None) -> None:
        """Compare what the answer says of itself with what is expected; ``offset`` is ``None`` for a whole file."""
        if offset is None:
            length = headers.get("content-length", "")
            if length.isdecimal() and int(length) != self._size_bytes:
                raise self._other_size(int(length))
            return
        match = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
        if match is not None and match[3] != "*" and int(match[3]) != self._size_bytes:
            raise self._other_size(int(match[3]))
        if match is None or int(match[1]) != offset or headers.get("etag", tag) != tag:
            self._drop()
            raise _BrokenOffError("the server continued another file or at another place")

    def _receive(self, answer: http.client.HTTPResponse, offset: int) -> None:
        done = offset
        with self._target.open("ab" if offset else "wb") as file:
            while chunk := _read(answer):
                done += len(chunk)
                if done > self._size_bytes:
                    break
                file.write(chunk)
                self._progress(done, self._size_bytes, "download")
        if done > self._size_bytes:
            raise self._other_size(None)
        if done < self._size_bytes:
            raise _BrokenOffError("the connection ended early")

    def _other_size(self, announced: int | None) -> ModelError:
        self._drop()
        found = "more" if announced is None else f"{announced} bytes"
        return ModelError(
            f"{self._source} sends {found} where the catalogue pins {self._size_bytes} bytes; nothing was kept.",
            "Check HF_ENDPOINT: what answers there is not the pinned file.",
        )

    def _tag(self) -> str | None:
        """The strong entity tag of what is on disk."""
        try:
            tag = self._tag_file.read_text(encoding="latin-1")
        except FileNotFoundError:
            return None
        return tag or None

    def _remember(self, tag: str) -> None:
        # The old file goes first: a kill in between must not leave its bytes under the new tag.
        self._drop()
        if tag.startswith('"'):
            self._tag_file.write_text(tag, encoding="latin-1")

    def _drop(self) -> None:
        self._target.unlink(missing_ok=True)
        self._tag_file.unlink(missing_ok=True)


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read1(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(_cause(error)) from None


def _unreachable(source: HuggingFace, error: Exception) -> Exception:
    if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
        return ModelError(
            f"The certificate of {source} cannot be verified.",
            "Set SSL_CERT_FILE to the certificates that your network uses.",
        )
    return _BrokenOffError(_cause(error))


def _cause(error: Exception) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return "the server fell silent"
    return getattr(reason, "strerror", None) or str(reason) or type(reason).__name__


def _url(source: HuggingFace, endpoint: str) -> str:
    if not endpoint.lower().startswith(("http://", "https://")):
        raise ModelError(f"HF_ENDPOINT is not an http(s) URL: '{endpoint}'.", "Correct it, or unset it.")
    return f"{endpoint.rstrip('/')}/{quote(source.repo)}/resolve/{quote(source.revision)}/{quote(source.file)}"


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _seconds(text: str) -> float | None:
    return float(text) if text.isdecimal() else None
