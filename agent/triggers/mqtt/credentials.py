"""TLS context and password, read from the files a spec names.

Read again at every connect, so that a renewed certificate or password is picked up without a restart.
Errors are SpecErrors that name the key. No text of an error holds what a file contains.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from agent.model.errors import SpecError
from agent.triggers.mqtt.spec import MqttSpec


def read_password(spec: MqttSpec) -> str | None:
    """The password, from wherever it is given; the last line end of a file does not belong to it."""
    if not spec.password_file:
        return spec.password or spec.address.password or None
    try:
        return Path(spec.password_file).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable("passwordFile", spec.password_file, error) from error


def tls_context(spec: MqttSpec) -> ssl.SSLContext | None:
    """What to wrap the connection in; None for a plain one. System roots where no `caFile` is given."""
    if not spec.address.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=spec.ca_file or None)
    except OSError as error:
        raise _unreadable("caFile", spec.ca_file, error) from error
    if spec.cert_file:
        _load_client_certificate(context, spec)
    if spec.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _load_client_certificate(context: ssl.SSLContext, spec: MqttSpec) -> None:
    for key, path in (("certFile", spec.cert_file), ("keyFile", spec.key_file)):
        try:
            if path:
                Path(path).open("rb").close()
        except OSError as error:
            raise _unreadable(key, path, error) from error
    try:
        # An empty password instead of none: without one OpenSSL asks the terminal for it.
        context.load_cert_chain(spec.cert_file, spec.key_file or None, password="")
    except (OSError, ValueError) as error:
        raise SpecError(
            f"certFile {spec.cert_file!r} and keyFile {spec.key_file!r} cannot be used: {_reason(error)}",
            where="attributes.certFile",
            fix="give a PEM certificate and its unencrypted PEM key",
        ) from error


def _unreadable(key: str, path: str, error: Exception) -> SpecError:
    return SpecError(
        f"{key} {path!r} cannot be read: {_reason(error)}",
        where=f"attributes.{key}",
        fix="check the path and that this user may read it",
    )


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"not valid PEM ({error.reason or error})"
    return (error.strerror or str(error)) if isinstance(error, OSError) else type(error).__name__
