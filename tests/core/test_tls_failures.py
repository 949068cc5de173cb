"""What errors of TLS are taken for, by clients of a service and of etcd."""

from __future__ import annotations

import ssl

import httpx
import pytest

from hostler.core.etcd.errors import EtcdUnavailable, EtcdUntrusted, error_of_no_answer
from hostler.core.rpc.tls import failure
from hostler.core.tls_failures import alert_of, cause

OF_CERTIFICATES = (
    "TLSV1_ALERT_UNKNOWN_CA",
    "TLSV1_ALERT_DECRYPT_ERROR",
    "TLSV1_ALERT_ACCESS_DENIED",
    "SSLV3_ALERT_BAD_CERTIFICATE",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED",
    "SSLV3_ALERT_CERTIFICATE_REVOKED",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
)
OF_OTHERS = (
    "SSLV3_ALERT_HANDSHAKE_FAILURE",
    "TLSV1_ALERT_INTERNAL_ERROR",
    "TLSV1_ALERT_INSUFFICIENT_SECURITY",
    "TLSV13_ALERT_MISSING_EXTENSION",
    "TLSV1_UNRECOGNIZED_NAME",
)
LOST = ("DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "UNEXPECTED_EOF_WHILE_READING", "UNEXPECTED_RECORD", "BAD_RECORD_TYPE")


def ssl_error(reason: str) -> ssl.SSLError:
    """As OpenSSL's reasons come."""
    error = ssl.SSLError(1, f"[SSL: {reason}] {reason.lower()} (_ssl.c:1006)")
    error.reason = reason
    return error


def of_etcd(reason: str, kind: type[httpx.TransportError] = httpx.ConnectError) -> EtcdUnavailable:
    """The error of a request that has failed in this way."""
    try:
        raise kind(f"[SSL: {reason}]") from ssl_error(reason)
    except httpx.TransportError as error:
        return error_of_no_answer("https://etcd:2379", error)


@pytest.mark.parametrize("reason", OF_CERTIFICATES)
def test_an_alert_about_a_certificate_names_the_certificate(reason: str) -> None:
    for kind in (httpx.ConnectError, httpx.ReadError):  # with TLS 1.3 the handshake is over for the client
        found = of_etcd(reason, kind)
        assert isinstance(found, EtcdUntrusted)
        assert "it does not accept this member's certificate: " in str(found)
    assert "client certificate" in str(failure(ssl_error(reason)))


@pytest.mark.parametrize("reason", OF_OTHERS)
def test_another_alert_is_a_refusal_and_names_no_certificate_of_the_client(reason: str) -> None:
    words = alert_of(ssl_error(reason)).lower().replace("_", " ")
    found = of_etcd(reason)
    assert isinstance(found, EtcdUntrusted)
    assert f"it refuses the connection: {words}" in str(found)
    assert str(failure(ssl_error(reason))) == f"the service refuses the connection: {words}"


@pytest.mark.parametrize("reason", LOST)
def test_a_damaged_or_ended_connection_is_a_lost_one(reason: str) -> None:
    found = of_etcd(reason, httpx.ReadError)
    assert type(found) is EtcdUnavailable
    assert reason in str(found)
    assert failure(ssl_error(reason)) is None


def test_no_tls_is_said_of_an_endpoint_only_where_no_handshake_was_made() -> None:
    assert "it speaks no TLS there" in str(of_etcd("WRONG_VERSION_NUMBER"))
    assert type(of_etcd("WRONG_VERSION_NUMBER", httpx.ReadError)) is EtcdUnavailable
    assert "speaks no TLS there" in str(failure(ssl_error("WRONG_VERSION_NUMBER")))
    assert failure(ssl_error("WRONG_VERSION_NUMBER"), after_handshake=True) is None


def test_a_version_that_only_one_end_speaks_is_said_by_either() -> None:
    for reason in ("TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL"):
        assert cause(ssl_error(reason)) == "version"
        assert "it speaks no version of TLS" in str(of_etcd(reason))
        assert "speaks no version of TLS" in str(failure(ssl_error(reason)))
