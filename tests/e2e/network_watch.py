"""A network of its own in which everything leads to this machine, and all that is sent is seen.

    unshare --net python -m tests.e2e.network_watch COMMAND...

The interface `lo` is up and is the route to every address: what a program sends to another machine is seen there, also
what native code sends, and goes nowhere. Runs the command and then writes as JSON `status`, its exit status, and
`sent`: the addresses outside this machine that packets went to, and the servers of names that were asked.
"""

from __future__ import annotations

import ctypes
import fcntl
import ipaddress
import json
import socket
import struct
import subprocess
import sys
import threading

_SIOCADDRT, _SIOCSIFFLAGS = 0x890B, 0x8914
_UP_AND_RUNNING = 0x1 | 0x40
_ETH_P_ALL, _ETH_P_IP, _ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
_LINK = 14
"""Bytes of the link's header."""
_DNS = 53


def open_network() -> None:
    """Bring `lo` up, and make it the way to everywhere. Raises OSError where this process may not."""
    everywhere = struct.pack("HH4s8s", socket.AF_INET, 0, bytes(4), b"")
    device = ctypes.create_string_buffer(b"lo")
    route = (0, everywhere, everywhere, everywhere, 1, 0, 0, 0, 0, ctypes.addressof(device), 0, 0, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", _UP_AND_RUNNING, b""))
        fcntl.ioctl(control, _SIOCADDRT, struct.pack("L16s16s16sHhLPhPLLH", *route))


def destination(kind: int, frame: bytes) -> str | None:
    """Where a packet goes, "address:port", when that is another machine or a server of names; else None."""
    packet = frame[_LINK:]
    if kind == _ETH_P_IP:
        address = ipaddress.ip_address(packet[16:20])
        transport = packet[(packet[0] & 15) * 4 :]
    elif kind == _ETH_P_IPV6:
        address = ipaddress.ip_address(packet[24:40])
        transport = packet[40:]
    else:
        return None
    port = int.from_bytes(transport[2:4])
    return f"{address}:{port}" if not address.is_loopback or port == _DNS else None


def main() -> int:
    """The command line."""
    open_network()
    sent: set[str] = set()
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    packets.bind(("lo", 0))

    def watch() -> None:
        while True:
            frame, (_, kind, *_) = packets.recvfrom(65535)
            if found := destination(kind, frame):
                sent.add(found)

    threading.Thread(target=watch, daemon=True).start()
    status = subprocess.run(sys.argv[1:], check=False, stdin=subprocess.DEVNULL).returncode
    sys.stdout.write(json.dumps({"status": status, "sent": sorted(sent)}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
