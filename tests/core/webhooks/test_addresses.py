"""What must never be connected to. Each is tried at creation's check_url and at a delivery, without a connection."""

from __future__ import annotations

import threading

import anyio
import pytest

from core.errors import Unavailable, WebhookRefused
from core.webhooks.addresses import MAX_URL, BoundedResolver, CheckedUrl, ParsedUrl, check_url, is_public
from core.webhooks.sender import Sender
from core.webhooks.testing import FakeBackend, FakeResolver

PUBLIC = "93.184.215.14"
V6 = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
NAMES = {
    "example.com": [[PUBLIC]],
    "both.example.com": [[PUBLIC, V6]],
    "loopback.example.com": [["127.0.0.1"]],
    "loopback6.example.com": [["::1"]],
    "ten.example.com": [["10.1.2.3"]],
    "metadata.example.com": [["169.254.169.254"]],
    "mixed.example.com": [[PUBLIC, "10.0.0.1"]],
    "mixed6.example.com": [[PUBLIC, "fd00::1"]],
    "mapped.example.com": [["::ffff:127.0.0.1"]],
    "scoped.example.com": [["fe80::1%eth0"]],
    "scopedpublic.example.com": [["2606:2800:21f:cb07:6820:80da:af6b:8b2c%1"]],
    "nothing.example.com": [[]],
    "nonsense.example.com": [["not an address"]],
    "xn--bcher-kva.example.com": [["192.168.1.10"]],
    "127.0.0.1.nip.io": [["127.0.0.1"]],
    "localtest.me": [["127.0.0.1"]],
    "redis": [[PUBLIC]],
    "localhost": [[PUBLIC]],
    "metadata.google.internal": [[PUBLIC]],
    "2130706433": [[PUBLIC]],
}
REFUSED = [
    # schemes
    "http://example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com:443/",
    "redis://example.com:443/",
    "//example.com/",
    "example.com",
    "https:example.com",
    "https:/example.com",
    "https:///example.com",
    "HTTPS\n://example.com/",
    "javascript:alert(1)",
    "",
    # this machine
    "https://127.0.0.1/",
    "https://127.255.255.254/",
    "https://localhost/",
    "https://LOCALHOST/",
    "https://api.localhost/",
    "https://0.0.0.0/",
    "https://0.1.2.3/",
    "https://[::1]/",
    "https://[::]/",
    "https://[0:0:0:0:0:0:0:1]/",
    # IPv4 written otherwise: decimal, octal, hex, short, padded
    "https://2130706433/",
    "https://017700000001/",
    "https://0x7f000001/",
    "https://0X7F000001/",
    "https://0177.0.0.1/",
    "https://0x7f.0.0.1/",
    "https://0x7f.1/",
    "https://127.1/",
    "https://127.0.1/",
    "https://127.000.000.001/",
    "https://010.0.0.1/",
    "https://0x/",
    "https://127.0.0.0x1/",
    "https://256.0.0.1/",
    "https://1.2.3.4.5/",
    "https://99999999999/",
    # this network, and networks with a meaning of their own
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.168.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://100.64.0.1/",
    "https://100.100.100.200/",
    "https://168.63.129.16/",
    "https://192.0.0.1/",
    "https://192.0.2.1/",
    "https://192.88.99.1/",
    "https://198.18.0.1/",
    "https://198.51.100.1/",
    "https://203.0.113.1/",
    "https://224.0.0.1/",
    "https://239.255.255.250/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    # the same in IPv6
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fe80::1%eth0]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[fec0::1]/",
    "https://[ff02::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::ffff:10.0.0.1]/",
    f"https://[::ffff:{PUBLIC}]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b::10.0.0.1]/",
    "https://[64:ff9b::169.254.169.254]/",
    "https://[64:ff9b:1::a00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a00:1::1]/",
    "https://[2001::1]/",
    "https://[2001:db8::1]/",
    "https://[100::1]/",
    "https://[3fff::1]/",
    "https://[::1/",
    "https://::1/",
    "https://[127.0.0.1]/",
    "https://[example.com]/",
    "https://[v1.x]/",
    # users, and what resembles a host name and is none
    "https://user@example.com/",
    "https://user:password@example.com/",
    "https://example.com@127.0.0.1/",
    "https://127.0.0.1@example.com/",
    "https://example.com:443@10.0.0.1/",
    "https://example.com#@127.0.0.1/",
    "https://example.com/#fragment",
    "https://example.com\\@127.0.0.1/",
    "https://127.0.0.1\\.example.com/",
    "https://example.com%00.internal/",
    "https://127.0.0.1%2f.example.com/",
    "https://%31%32%37.0.0.1/",
    "https://example.com /",
    " https://example.com/",
    "https://example.com/\r\nHost: redis",
    "https://exam\tple.com/",
    "https://example.com/ x",
    "https://example.com/\x00",
    # names
    "https://example.com./",
    "https://127.0.0.1./",
    "https://.example.com/",
    "https://example..com/",
    "https://-example.com/",
    "https://redis/",
    "https://metadata.google.internal/",
    "https://printer.local/",
    "https://1.0.0.127.in-addr.arpa/",
    "https://loopback.example.com/",
    "https://loopback6.example.com/",
    "https://ten.example.com/",
    "https://metadata.example.com/",
    "https://mixed.example.com/",
    "https://mixed6.example.com/",
    "https://mapped.example.com/",
    "https://scoped.example.com/",
    "https://scopedpublic.example.com/",
    "https://nothing.example.com/",
    "https://nonsense.example.com/",
    "https://unknown.example.com/",
    "https://xn--bcher-kva.example.com/",
    "https://127.0.0.1.nip.io/",
    "https://localtest.me/",
    # characters that become others
    "https://ⓛocalhost/",
    "https://127。0。0。1/",
    "https://１２７.0.0.1/",
    "https://bücher.example.com/",
    "https://example.com／@127.0.0.1/",
    "https://exa\u200bmple.com/",
    # ports
    "https://example.com:22/",
    "https://example.com:80/",
    "https://example.com:6379/",
    "https://example.com:0/",
    "https://example.com:65536/",
    "https://example.com:99999/",
    "https://example.com:/",
    "https://example.com:443:22/",
    "https://example.com:+443/",
    "https://example.com:４４３/",
    # length
    "https://example.com/" + "a" * MAX_URL,
    "https://" + "a" * 254 + ".com/",
    "https://" + "a" * 64 + ".example.com/",
]


def test_the_table_is_long_enough() -> None:
    assert len(set(REFUSED)) == len(REFUSED) >= 60


@pytest.mark.parametrize("url", REFUSED)
def test_it_is_refused_at_creation_and_never_connected_to(url: str) -> None:
    with pytest.raises(WebhookRefused) as refused:
        check_url(url, FakeResolver(NAMES))
    assert refused.value.field == "url"
    backend = FakeBackend()
    attempt = anyio.run(Sender(resolve=FakeResolver(NAMES), backend=backend).send, url, {}, b"{}")
    assert attempt.status is None
    assert (attempt.error or "").startswith("refused: ")
    assert backend.connections == []


@pytest.mark.parametrize(
    ("url", "target", "addresses"),
    [
        ("https://example.com", ParsedUrl("https", "example.com", 443, "/"), (PUBLIC,)),
        ("https://EXAMPLE.com:8443/a/b?c=%20d", ParsedUrl("https", "example.com", 8443, "/a/b?c=%20d"), (PUBLIC,)),
        (
            "https://both.example.com/",
            ParsedUrl("https", "both.example.com", 443, "/"),
            (PUBLIC, V6),
        ),
        (f"https://{PUBLIC}/x", ParsedUrl("https", PUBLIC, 443, "/x"), (PUBLIC,)),
        ("https://[2606:4700::1111]/", ParsedUrl("https", "2606:4700::1111", 443, "/"), ("2606:4700::1111",)),
        ("https://example.com?x=1", ParsedUrl("https", "example.com", 443, "/?x=1"), (PUBLIC,)),
    ],
)
def test_what_is_public_is_taken_as_it_was_checked(url: str, target: ParsedUrl, addresses: tuple[str, ...]) -> None:
    assert check_url(url, FakeResolver(NAMES)) == CheckedUrl(target, addresses)


def test_both_families_are_tried() -> None:
    six = [f"2606:4700::{number}" for number in range(1, 5)]
    resolver = FakeResolver({"a.example.com": [[*six, PUBLIC]], "b.example.com": [[PUBLIC, "1.1.1.1", *six]]})
    assert check_url("https://a.example.com/", resolver).addresses == (six[0], PUBLIC, six[1])
    assert check_url("https://b.example.com/", resolver).addresses == (PUBLIC, six[0], "1.1.1.1")


def test_names_that_hang_do_not_take_all_threads() -> None:
    over, begun = threading.Event(), threading.Semaphore(0)

    def hang(name: str, port: int) -> list[str]:
        begun.release()
        over.wait(10)
        return [PUBLIC]

    resolver = BoundedResolver(2, hang)
    threads = [threading.Thread(target=check_url, args=("https://example.com/", resolver)) for _ in range(2)]
    for thread in threads:
        thread.start()
        begun.acquire()
    with pytest.raises(Unavailable):
        check_url("https://example.com/", resolver)
    over.set()
    for thread in threads:
        thread.join()
    assert check_url("https://example.com/", resolver).addresses == (PUBLIC,)


def test_an_address_is_not_looked_up() -> None:
    resolver = FakeResolver({})
    check_url(f"https://{PUBLIC}/", resolver)
    assert resolver.lookups == []


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080/x", "http://localhost:5000/", "https://[::1]:9/", "http://redis"]
)
def test_development_may_be_private(url: str) -> None:
    names = {"localhost": [["127.0.0.1"]], "redis": [["172.18.0.2"]]}
    assert check_url(url, FakeResolver(names), allow_private=True).addresses


@pytest.mark.parametrize(
    "url", ["https://user@localhost/", "file:///etc/passwd", "http://0x7f.1/", "http://localhost:0/"]
)
def test_what_can_be_read_in_two_ways_is_refused_in_development_too(url: str) -> None:
    with pytest.raises(WebhookRefused):
        check_url(url, FakeResolver({"localhost": [["127.0.0.1"]]}), allow_private=True)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("64:ff9b::8.8.8.8", True),
        ("64:ff9b::127.0.0.1", False),
        ("2a00:1450:4001:81b::200e", True),
        ("100.63.255.255", True),
        ("100.64.0.0", False),
        ("100.127.255.255", False),
        ("100.128.0.0", True),
        ("172.15.255.255", True),
        ("172.32.0.0", True),
        ("223.255.255.255", True),
        ("224.0.0.0", False),
        ("1.1.1.1\n", False),
        ("", False),
    ],
)
def test_where_the_public_begins_and_ends(address: str, *, public: bool) -> None:
    assert is_public(address) is public
