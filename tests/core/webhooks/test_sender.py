from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import anyio
import httpcore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from core.webhooks.records import Attempt
from core.webhooks.sender import MOST_BYTES, Sender
from core.webhooks.testing import FakeBackend, FakeResolver

PUBLIC, OTHER = "93.184.215.14", "93.184.215.15"
URL = "https://hooks.example.com/in?shop=1"


def sent(sender: Sender, url: str = URL, body: bytes = b'{"type":"webhook.test"}') -> Attempt:
    return anyio.run(sender.send, url, {"webhook-id": "msg_1"}, body)


@contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """Something that listens on loopback, and does this with whoever comes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(5)
            serve(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        listener.close()
        thread.join(10)


def received(connection: socket.socket) -> bytes:
    """The whole request: who closes before that resets the connection."""
    data = b""
    while not data.endswith(b'"}') and (more := connection.recv(65536)):
        data += more
    return data


def test_the_connection_goes_to_the_checked_address_with_the_names_certificate() -> None:
    backend = FakeBackend()
    attempt = sent(Sender(resolve=FakeResolver({"hooks.example.com": [[PUBLIC]]}), backend=backend))
    assert (attempt.status, attempt.error) == (204, None)
    assert backend.connections == [(PUBLIC, 443)]
    assert backend.names == ["hooks.example.com"]
    head, _, body = backend.sent.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /in?shop=1 HTTP/1.1\r\n")
    assert b"host: hooks.example.com\r\n" in head.lower() + b"\r\n"
    assert body == b'{"type":"webhook.test"}'


def test_a_name_that_resolves_differently_the_second_time_changes_nothing() -> None:
    resolver = FakeResolver({"hooks.example.com": [[PUBLIC], ["127.0.0.1"]]})
    backend = FakeBackend()
    sender = Sender(resolve=resolver, backend=backend)
    assert sent(sender).status == 204
    assert resolver.lookups == ["hooks.example.com"]
    assert backend.connections == [(PUBLIC, 443)]
    assert (sent(sender).error or "").startswith("refused: ")
    assert backend.connections == [(PUBLIC, 443)]


def test_a_redirect_is_not_followed() -> None:
    backend = FakeBackend(b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1/\r\nContent-Length: 0\r\n\r\n")
    assert sent(Sender(resolve=FakeResolver({"hooks.example.com": [[PUBLIC]]}), backend=backend)).status == 302
    assert len(backend.connections) == 1


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    backend = FakeBackend()
    assert sent(Sender(resolve=FakeResolver({"hooks.example.com": [[PUBLIC]]}), backend=backend)).status == 204
    assert backend.connections == [(PUBLIC, 443)]


def test_each_address_is_tried_once() -> None:
    backend = FakeBackend(httpcore.ConnectError("refused"))
    attempt = sent(Sender(resolve=FakeResolver({"hooks.example.com": [[PUBLIC, OTHER, PUBLIC]]}), backend=backend))
    assert (attempt.status, attempt.error) == (None, "the connection failed")
    assert backend.connections == [(PUBLIC, 443), (OTHER, 443)]


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x00" * 50, b"HTTP/1.1 abc\r\n\r\n"])
def test_what_does_not_speak_http_is_an_error(answer: bytes) -> None:
    backend = FakeBackend(answer)
    attempt = sent(Sender(resolve=FakeResolver({"hooks.example.com": [[PUBLIC]]}), backend=backend))
    assert (attempt.status, attempt.error) == (None, "the answer is not HTTP")


def test_a_real_answer() -> None:
    seen = []

    def answer(connection: socket.socket) -> None:
        seen.append(received(connection))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with server(answer) as url:
        attempt = sent(Sender(allow_private=True), url)
    assert (attempt.status, attempt.error) == (200, None)
    assert b"webhook-id: msg_1" in seen[0]


def test_an_endless_answer_is_not_read() -> None:
    total = 0

    def flood(connection: socket.socket) -> None:
        nonlocal total
        received(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            while total < 1 << 28:
                total += connection.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        except OSError:
            pass

    with server(flood) as url:
        attempt = sent(Sender(allow_private=True), url)
    assert attempt.status == 200
    assert total < 1000 * MOST_BYTES, "what fits into the buffers on the way, and no more"


@pytest.mark.parametrize("how", ["cut", "slow"])
def test_once_there_is_a_status_it_counts(how: str) -> None:
    def begin(connection: socket.socket) -> None:
        received(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
        if how == "slow":
            time.sleep(1)

    with server(begin) as url:
        attempt = sent(Sender(allow_private=True, timeout=0.5), url)
    assert (attempt.status, attempt.error) == (200, None)


def test_a_drop_at_a_time_takes_no_longer_than_is_allowed() -> None:
    def drip(connection: socket.socket) -> None:
        received(connection)
        try:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            for _ in range(100):
                connection.sendall(b"x: y\r\n")
                time.sleep(0.05)
        except OSError:
            pass

    with server(drip) as url:
        attempt = sent(Sender(allow_private=True, timeout=0.5), url)
    assert (attempt.status, attempt.error) == (None, "no answer within 0.5 s")
    assert attempt.seconds < 3


def test_a_resolver_that_hangs_is_left_to_itself() -> None:
    over = threading.Event()

    def hang(name: str, port: int) -> list[str]:
        over.wait(20)
        return []

    backend = FakeBackend()
    threading.Timer(1.0, over.set).start()  # the end of the loop waits for its threads
    attempt = sent(Sender(resolve=hang, backend=backend, timeout=0.2))
    assert attempt.error == "no answer within 0.2 s"
    assert backend.connections == []


def test_plain_http_where_tls_is_spoken() -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with server(answer) as url:
        attempt = sent(Sender(allow_private=True), url.replace("http://", "https://"))
    assert (attempt.status, attempt.error) == (None, "TLS failed")


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Both ends of TLS with a certificate for hooks.example.com: who shows it, and who believes it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.example.com")])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example.com")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = certificate.public_bytes(serialization.Encoding.PEM)
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain) + public)
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.load_cert_chain(file)
    return server_side, ssl.create_default_context(cadata=public.decode())


@pytest.mark.parametrize(
    ("name", "is_believed", "expected"),
    [
        ("hooks.example.com", True, (200, None)),
        ("other.example.com", True, (None, "TLS failed")),
        ("hooks.example.com", False, (None, "TLS failed")),
    ],
)
def test_the_certificate_must_be_the_names(
    certified: tuple[ssl.SSLContext, ssl.SSLContext],
    name: str,
    is_believed: bool,
    expected: tuple[int | None, str | None],
) -> None:
    server_side, believing = certified

    def answer(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), server_side.wrap_socket(connection, server_side=True) as secured:
            received(secured)
            secured.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with server(answer) as url:
        resolver = FakeResolver({name: [["127.0.0.1"]]})
        sender = Sender(allow_private=True, resolve=resolver, tls=believing if is_believed else None)
        attempt = sent(sender, url.replace("http://127.0.0.1", f"https://{name}"))
    assert (attempt.status, attempt.error) == expected


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    attempt = sent(Sender(allow_private=True), f"http://127.0.0.1:{port}/")
    assert (attempt.status, attempt.error) == (None, "the connection failed")
