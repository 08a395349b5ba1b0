"""Certificates: those that are trusted, and OpenSSL's own reason where one is not."""

from __future__ import annotations

import os
import re
import ssl
from typing import Any

from ...engine.core.errors import RecipeError

_VARIABLE = "SSL_CERT_FILE"
_PLACE = re.compile(r" \(_ssl\.c:\d+\)")
_PREFIX = re.compile(r".*certificate verify failed: ")
_OUT_OF_DATE = frozenset({9, 10})  # OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and ..._HAS_EXPIRED
_OTHER_NAME = frozenset({62, 63, 64})  # ..._HOSTNAME_MISMATCH, ..._EMAIL_MISMATCH, ..._IP_ADDRESS_MISMATCH


def trusted() -> ssl.SSLContext:
    """Return the certificates that the openai package trusts as well, so that both paths reach the same hosts.

    They are those of SSL_CERT_FILE or SSL_CERT_DIR, else the system's. Raises RecipeError for a file that holds none.
    """
    import httpx2  # noqa: PLC0415 - not needed for http, and slow to import

    try:
        return httpx2.create_ssl_context()
    except OSError as error:  # an ssl.SSLError is one
        file = os.environ.get(_VARIABLE)
        if not file:
            raise
        problem = f"the certificates in {file} cannot be read: {reason_of(error)}; name a file in PEM form"
        raise RecipeError(_VARIABLE, problem) from None


def reason_of(error: OSError) -> str:
    """Return OpenSSL's reason, or the system's."""
    if not isinstance(error, ssl.SSLError):
        return error.strerror or str(error)
    said = getattr(error, "verify_message", "") or _PLACE.sub("", error.strerror or str(error))
    return _PREFIX.sub("", said)


def certificate_error(error: BaseException) -> Any:
    """Return the exception of `ssl` in a client's own exception for a certificate, else `error` itself."""
    return getattr(error, "certificate_error", None) or error


def advice_for(error: BaseException) -> str:
    """Return what to do about a certificate that is not trusted."""
    code = getattr(certificate_error(error), "verify_code", None)
    if code in _OUT_OF_DATE:
        return "check the clock of this machine, else the certificate needs to be renewed"
    if code in _OTHER_NAME:
        return "use an address whose host the certificate names"
    return f"set {_VARIABLE} to a PEM file that holds the certificate of the authority that signed it"
