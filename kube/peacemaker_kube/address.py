"""Where a server listens, as people write it: `:8080`, `127.0.0.1:8080`, `[::1]:8080`."""

from dataclasses import dataclass
from typing import Final, Self

import click

_PORTS: Final = range(1, 65536)


@dataclass(frozen=True, slots=True)
class Address:
    """A host, None for all interfaces, and a port."""

    host: str | None
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError that says what is allowed."""
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
        if not colon or not port.isascii() or not port.isdigit() or int(port) not in _PORTS:
            raise ValueError(f"{text!r} is no address (allowed HOST:PORT, [IPv6]:PORT or :PORT)")
        if ":" in host and not text.startswith("["):
            raise ValueError(f"{text!r} is no address (an IPv6 address is written [{host}]:{port})")
        return cls(host or None, int(port))

    def __str__(self) -> str:
        host = self.host or ""
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


class AddressType(click.ParamType[Address]):
    """An option that is an address."""

    name = "address"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Address:
        try:
            return value if isinstance(value, Address) else Address.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
