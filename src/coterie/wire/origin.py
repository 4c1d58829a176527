"""Where a server answers: the origin of its URLs, checked and taken apart."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]*")
_NETLOC: Final = re.compile(r"(?:\[(?P<address>[^\[\]%]*)\]|(?P<name>[^\[\]:]*))(?::(?P<port>[0-9]{0,5}))?")
_NAME: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?")


@dataclass(frozen=True, slots=True)
class Origin:
    """A host (a name in ASCII or an address without brackets) and port, spoken to over TLS or not.

    With a ``unix_path`` it is that socket which is connected to; the host is what requests name.
    """

    host: str
    port: int
    tls: bool
    unix_path: str | None = None

    @classmethod
    def parse(cls, url: str) -> tuple[Origin, str]:
        """The origin of a base URL, and its path without a slash at the end.

        Raises ``ValueError`` with a reason, which does not repeat the URL.
        """
        # urlsplit drops some control characters without a word.
        if any(character.isspace() or not character.isprintable() for character in url):
            raise ValueError("the URL has a space or a control character")
        parts = _split(url)
        if parts.scheme not in _DEFAULT_PORTS:
            raise ValueError("the URL does not begin with http:// or https://")
        if "@" in parts.netloc:
            raise ValueError("the URL has a user name or password")
        if "?" in url or "#" in url:
            raise ValueError("the URL has a query or a fragment")
        if not _PRINTABLE.fullmatch(parts.path):
            raise ValueError("the URL's path has characters that must be percent-encoded")
        return cls(*_host_and_port(parts), tls=parts.scheme == "https"), parts.path.rstrip("/")

    @property
    def authority(self) -> str:
        """What the ``Host`` header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS["https" if self.tls else "http"] else f"{host}:{self.port}"


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError("the URL's host cannot be read") from None


def _host_and_port(parts: SplitResult) -> tuple[str, int]:
    match = _NETLOC.fullmatch(parts.netloc)
    if match is None:
        raise ValueError("the URL's host and port cannot be read")
    address, name, port = match.group("address", "name", "port")
    number = int(port) if port else _DEFAULT_PORTS[parts.scheme]
    if not 0 < number < 65536:
        raise ValueError("the URL's port is not a number from 1 to 65535")
    return _ascii_name(name) if address is None else _ipv6(address), number


def _ipv6(address: str) -> str:
    try:
        return str(ipaddress.IPv6Address(address))
    except ValueError:
        raise ValueError("the URL's host is not an IPv6 address") from None


def _ascii_name(name: str) -> str:
    try:
        written = name.lower().encode("idna").decode("ascii")
    except ValueError:
        written = ""
    if not _NAME.fullmatch(written):
        raise ValueError("the URL's host is no name and no address")
    return written
