"""Keys and counts of a profile of system calls, as a person reads them."""

import pytest

from agentscope.sources.profile import address_text, error_name


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (bytes([2, 0, 0x15, 0x38, 10, 0, 0, 5]), "10.0.0.5:5432"),
        (bytes([10, 0, 0, 80, 0, 0, 0, 0]) + bytes(15) + b"\x01" + bytes(4), "[::1]:80"),
        (b"\x01\0/run/db.sock\0", "/run/db.sock"),
        (b"\x01\0\0bus\x1b[2J", "@bus"),
        (b"\x01\0/run/\xff\n\x1b[31mred", "/run/\ufffd red"),
        (b"\x02\0\0", "address family 2"),
        (b"", "address family 0"),
    ],
)
def test_addresses_are_text(raw: bytes, text: str) -> None:
    """IPv4, IPv6, paths and abstract names; whatever a program puts there comes out as one clean line."""
    shown = address_text(raw)
    assert shown.isprintable()
    assert shown == text


@pytest.mark.parametrize(
    ("number", "name"), [(0, None), (111, "ECONNREFUSED"), (11, "EAGAIN"), (512, "EINTR"), (516, "EINTR"), (4000, "errno 4000")]
)
def test_errors_have_names(number: int, name: str | None) -> None:
    """As in errno(3); the kernel's own codes of an interrupted call are EINTR."""
    assert error_name(number) == name
