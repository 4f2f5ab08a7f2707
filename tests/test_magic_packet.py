"""The packet of Wake-on-LAN, and the addresses of network cards as people write them."""

from __future__ import annotations

import pytest

from trio_gateway.magic_packet import magic_packet, read_mac

MAC = "0a:1b:2c:3d:4e:5f"


def test_a_magic_packet_is_six_times_ff_and_sixteen_times_the_address() -> None:
    packet = magic_packet(MAC)
    assert packet == bytes.fromhex("ffffffffffff" + "0a1b2c3d4e5f" * 16)
    assert len(packet) == 102


@pytest.mark.parametrize(
    "text", [MAC, "0A:1B:2C:3D:4E:5F", "0a-1b-2c-3d-4e-5f", "0a1b.2c3d.4e5f", "0A1B2C3D4E5F"]
)
def test_the_address_of_a_card_is_read_in_each_usual_form(text: str) -> None:
    assert read_mac(text) == MAC


@pytest.mark.parametrize(
    "text",
    [
        "", "0a:1b:2c:3d:4e", "0a:1b:2c:3d:4e:5f:60", "0a:1b-2c:3d-4e:5f", "0a:1b:2c:3d:4e:5g",
        "192.168.1.20", "0a1b:2c3d:4e5f", f"{MAC} ", "\u0660a:1b:2c:3d:4e:5f",
        "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "00:00:00:00:00:00",
    ],
)  # fmt: skip
def test_what_is_not_the_address_of_one_card_is_none(text: str) -> None:
    assert read_mac(text) is None
