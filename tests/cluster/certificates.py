"""A certificate authority of the cluster's own, its certificates, and a kubeconfig per component."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID = datetime.timedelta(days=30)
# A virtual machine that was paused may wake up with an old clock.
_EARLIER = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    directory: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_file(self) -> Path:
        return self.directory / "ca.crt"

    def issue(
        self, name: str, common_name: str, organization: str = "", addresses: Sequence[str | IPv4Address] = ()
    ) -> tuple[Path, Path]:
        """A certificate `NAME.crt` and key `NAME.key`; with `addresses`, for a server."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        if organization:
            names.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        builder = _builder(x509.Name(names), self.certificate.subject, key.public_key())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if addresses:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
            alternatives = [
                x509.IPAddress(one) if isinstance(one, IPv4Address) else x509.DNSName(one)
                for one in addresses
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        signed = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False).sign(
            self.key, hashes.SHA256()
        )
        certificate_file, key_file = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        certificate_file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        write_key(key_file, key)
        return certificate_file, key_file

    def kubeconfig(
        self, place: Path, server: str, name: str, common_name: str, organization: str = ""
    ) -> Path:
        """A kubeconfig (JSON, which is YAML) for one component, its certificate beside the authority's."""
        certificate_file, key_file = self.issue(name, common_name, organization)
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "tuneyard",
                    "cluster": {"server": server, "certificate-authority": str(self.certificate_file)},
                }
            ],
            "users": [
                {
                    "name": name,
                    "user": {"client-certificate": str(certificate_file), "client-key": str(key_file)},
                }
            ],
            "contexts": [{"name": "tuneyard", "context": {"cluster": "tuneyard", "user": name}}],
            "current-context": "tuneyard",
        }
        place.touch(mode=0o600)
        place.write_text(json.dumps(document, indent=2))
        return place


def create(directory: Path) -> Authority:
    """A new authority, and the key pair that signs service accounts' tokens (`accounts.key`)."""
    directory.mkdir(parents=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tuneyard test cluster")])
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    certificate = (
        _builder(name, name, key.public_key())
        .add_extension(constraints, critical=True)
        .sign(key, hashes.SHA256())
    )
    (directory / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    accounts = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    write_key(directory / "accounts.key", accounts)
    return Authority(directory, certificate, key)


def write_key(place: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    place.touch(mode=0o600)
    place.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + _VALID)
    )
