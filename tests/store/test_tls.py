"""A server with a certificate of its own authority: believed where ca_bundle= names it, refused elsewhere."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from places import QUICK, content_of, machine
from s3_servers import Server, serve

from launcher.outcome import Failure, Reason
from launcher.store.address import S3Address
from launcher.store.s3 import S3Store


def certificate(directory: Path) -> tuple[Path, Path]:
    """Files with a fresh self-signed certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tuneyard-tests")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    directory.mkdir()
    of_server, of_key = directory / "server.pem", directory / "key.pem"
    of_server.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    of_key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return of_server, of_key


@pytest.fixture
def over_tls(tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    of_server, of_key = certificate(tmp_path / "certificate")
    with serve("rclone", tmp_path / "server", "--cert", str(of_server), "--key", str(of_key)) as server:
        (tmp_path / "server" / "data" / "bucket").mkdir()
        yield server, of_server


def address(server: Server, ca_bundle: Path | None) -> S3Address:
    return S3Address(
        "bucket",
        "x",
        endpoint_url=f"https://127.0.0.1:{server.port}",
        ca_bundle=str(ca_bundle) if ca_bundle else None,
    ).with_limits(**QUICK)


def test_a_ca_bundle_makes_the_server_trusted(
    over_tls: tuple[Server, Path], tmp_path: Path, files: Callable[[dict[str, bytes]], Path]
) -> None:
    server, of_server = over_tls
    content = {"large": b"l" * (11 << 20), "small": b"s"}
    S3Store(address(server, of_server)).commit("stages/k", files(content), {})
    with machine(tmp_path / "reader"):
        assert content_of(S3Store(address(server, of_server)), "stages/k") == content


def test_the_environment_may_name_the_ca_bundle(
    over_tls: tuple[Server, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, of_server = over_tls
    monkeypatch.setenv("AWS_CA_BUNDLE", str(of_server))
    assert S3Store(address(server, None)).put_json("runs/r/plan.json", {})


def test_an_untrusted_server_is_refused_and_the_advice_names_the_bundle(
    over_tls: tuple[Server, Path], tmp_path: Path
) -> None:
    server, _ = over_tls
    strangers, _ = certificate(tmp_path / "strangers")
    for bundle in (None, strangers):
        with pytest.raises(Failure) as caught:
            S3Store(address(server, bundle))
        assert caught.value.reason is Reason.NETWORK
        assert "certificate" in caught.value.what
        assert "ca_bundle=" in caught.value.next_step


def test_a_missing_ca_bundle_is_reported(over_tls: tuple[Server, Path], tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        S3Store(address(over_tls[0], tmp_path / "nowhere.pem"))
    assert caught.value.where
    assert caught.value.next_step
