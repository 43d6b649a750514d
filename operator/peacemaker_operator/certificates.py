"""The certificates of the admission webhook: a CA of our own, and what it signs.

The API server trusts the CA by the caBundle of the webhook configuration; nobody else needs to know
it. Both keys live in one Secret, so that any replica can serve and whoever leads can renew.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFE: Final = timedelta(days=3650)
SERVING_LIFE: Final = timedelta(days=365)

_BACKDATED = timedelta(hours=1)  # the clocks of the API server's machines may be behind ours
_CA_NAME = "peacemaker webhook CA"
_MAX_COMMON_NAME = 64  # ub-common-name of RFC 5280


@dataclass(frozen=True, slots=True)
class Bundle:
    """PEM texts, under the keys of the Secret that keeps them.

    `ca` starts with the certificate of `ca_key`; CAs before it may follow, for as long as they are
    valid, so that what they signed is trusted until every replica has the new one.
    """

    ca: bytes
    ca_key: bytes
    certificate: bytes
    key: bytes

    @classmethod
    def from_secret(cls, data: Mapping[str, bytes]) -> Self:
        """The bundle in a Secret's data, decoded; what it lacks is empty."""
        return cls(*(data.get(name, b"") for name in ("ca.crt", "ca.key", "tls.crt", "tls.key")))

    def to_secret(self) -> dict[str, bytes]:
        """The data of the Secret that keeps this bundle."""
        return {
            "ca.crt": self.ca,
            "ca.key": self.ca_key,
            "tls.crt": self.certificate,
            "tls.key": self.key,
        }


@dataclass(frozen=True, slots=True)
class _Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def why_renew(bundle: Bundle, names: Collection[str], now: datetime) -> str:
    """Why a bundle must be made anew, for people; empty while it need not.

    names: the host names and addresses by which the webhook is called. A certificate is due when
    two thirds of its life are over.
    """
    try:
        ca, serving = _pair(bundle.ca, bundle.ca_key), _pair(bundle.certificate, bundle.key)
        serving.certificate.verify_directly_issued_by(ca.certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        return f"it is not usable: {str(error) or type(error).__name__}"
    if missing := sorted(set(names) - _names_of(serving.certificate)):
        return f"it does not name {', '.join(missing)}"
    if now >= (due := _due(serving.certificate)):
        return f"two thirds of its life were over at {due.isoformat()}"
    return ""


def expiry(bundle: Bundle) -> datetime:
    """When its serving certificate ends. Raises ValueError if it has none."""
    return x509.load_pem_x509_certificate(bundle.certificate).not_valid_after_utc


def renewed(old: Bundle | None, names: Collection[str], now: datetime) -> Bundle:
    """Return a bundle with a new serving certificate for the names.

    The CA stays while it outlives what it signs; else a new one is made, and the old one is still
    trusted beside it until it ends.
    """
    ca = _usable_ca(old, now)
    trusted = b"" if old is None else old.ca
    if ca is None:
        ca = _made_ca(now)
        still = [each for each in _certificates(trusted) if each.not_valid_after_utc > now]
        trusted = b"".join(map(_pem, [ca.certificate, *still]))
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _serving_certificate(ca, key, names, now)
    return Bundle(trusted, _key_pem(ca.key), _pem(certificate), _key_pem(key))


def _usable_ca(bundle: Bundle | None, now: datetime) -> _Pair | None:
    if bundle is None:
        return None
    try:
        ca = _pair(bundle.ca, bundle.ca_key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return ca if ca.certificate.not_valid_after_utc >= now + SERVING_LIFE else None


def _pair(certificate: bytes, key: bytes) -> _Pair:
    """ValueError, TypeError or UnsupportedAlgorithm if they cannot be read or are of two minds."""
    first = x509.load_pem_x509_certificate(certificate)
    private = serialization.load_pem_private_key(key, password=None)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise TypeError("its key is not an elliptic curve key")
    if private.public_key() != first.public_key():
        raise ValueError("its key is that of another certificate")
    return _Pair(first, private)


def _certificates(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        return []


def _due(certificate: x509.Certificate) -> datetime:
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return start + (end - start) * 2 / 3


def _made_ca(now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(_CA_NAME)
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    builder = (
        _builder(name, name, public, now, CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
    )
    return _Pair(builder.sign(key, hashes.SHA256()), key)


def _serving_certificate(
    ca: _Pair, key: ec.EllipticCurvePrivateKey, names: Collection[str], now: datetime
) -> x509.Certificate:
    public = key.public_key()
    first = next((name for name in sorted(names) if len(name) <= _MAX_COMMON_NAME), "webhook")
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    return (
        _builder(_name(first), ca.certificate.subject, public, now, SERVING_LIFE)
        .add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer, critical=False)
        .sign(ca.key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + life)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_names(names: Collection[str]) -> Iterator[x509.GeneralName]:
    for name in sorted(names):
        address = _address(name)
        yield x509.DNSName(name) if address is None else x509.IPAddress(address)


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name)
    except ValueError:
        return None


def _names_of(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {str(name.value) for name in names}


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
