"""Meaning of the errors of DynamoDB and of AWS's client: an outage that passes, or something that somebody must change."""

from __future__ import annotations

import re

from botocore.exceptions import (
    CapacityNotAvailableError,
    ChecksumError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    SSLError,
    TokenRetrievalError,
    WaiterError,
)
from botocore.parsers import ResponseParserError

from agentexec.errors import UnavailableError

CREDENTIALS = "correct AWS's credentials, or the host's clock"

ADVICE = {
    "AccessDeniedException": "give its role the permissions of the docs' page on DynamoDB",
    "ExpiredTokenException": CREDENTIALS,
    "IncompleteSignatureException": CREDENTIALS,
    "InvalidSignatureException": CREDENTIALS,
    "MissingAuthenticationTokenException": CREDENTIALS,
    "NotAuthorizedException": CREDENTIALS,
    "OptInRequired": "open the AWS account for DynamoDB",
    "UnrecognizedClientException": CREDENTIALS,
    "ValidationException": "check AGENTEXEC_DYNAMODB_TABLE",
}
"""Advice by the code of a refusal that stays until somebody changes the table, the permissions or the settings."""

OVERTAKEN = frozenset({"ConditionalCheckFailedException", "TransactionConflictException"})
"""Codes of a conditional write that another one has come before, or that meets a transaction on the same item."""

OUTAGES = (
    CapacityNotAvailableError,
    ChecksumError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    TokenRetrievalError,
    WaiterError,
)
"""Errors of AWS's client that pass; its others are about settings."""

PASSING_STATUS = re.compile(r"408|429|5\d\d")
"""Status of a reply without a code of DynamoDB that passes: of a load balancer, or a proxy."""


class RefusalError(UnavailableError):
    """Table that can be reached, or would be with other settings, but does not serve agentexec."""

    exit_code = 2


def code_of(error: ClientError) -> str:
    """Return DynamoDB's code of an error."""
    return error.response.get("Error", {}).get("Code", "Unknown")


def translate(error: Exception, table: str) -> UnavailableError:
    """Return the error to raise instead of one of AWS's client."""
    if isinstance(error, ClientError):
        return _refused(error, table)
    if isinstance(error, ResponseParserError):
        return foreign("its replies cannot be read")
    if isinstance(error, SSLError) and not re.search("EOF occurred", str(error)):
        return RefusalError(
            f"DynamoDB cannot be used over TLS: {_line(error)}; correct AWS_ENDPOINT_URL_DYNAMODB or AWS_CA_BUNDLE."
        )
    # A credential that cannot be sent is in the message.
    if isinstance(error, HTTPClientError) and "Invalid header value" in str(error):
        return misconfigured("the credentials have a character that cannot be sent")
    if isinstance(error, OUTAGES):
        return UnavailableError(f"DynamoDB cannot be reached: {_line(error)}.")
    return misconfigured(error)


def misconfigured(reason: object) -> RefusalError:
    """Return the error about AWS's own settings."""
    return RefusalError(
        f"DynamoDB cannot be used: {_line(reason)}; correct AWS's settings (AWS_REGION, AWS_ENDPOINT_URL_DYNAMODB, credentials, profile)."
    )


def foreign(reason: str) -> RefusalError:
    """Return the error about a server that is not DynamoDB."""
    return RefusalError(
        f"The server does not answer like DynamoDB ({reason}); correct AWS_ENDPOINT_URL_DYNAMODB, or the proxy."
    )


def _refused(error: ClientError, table: str) -> UnavailableError:
    code = code_of(error)
    if code == "ResourceNotFoundException":
        return RefusalError(
            f"DynamoDB has no table {table} in this region: run `agentexec migrate --state`, or set AGENTEXEC_DYNAMODB_TABLE."
        )
    if code.isdecimal() and not PASSING_STATUS.fullmatch(code):
        return foreign(f"HTTP status {code}")
    message = (
        f"DynamoDB refuses table {table}: {code}: {_line(error.response['Error'].get('Message') or code)}"
    )
    if code in ADVICE:
        return RefusalError(f"{message}; {ADVICE[code]}.")
    return UnavailableError(f"{message}.")


def _line(reason: object) -> str:
    """Return a reason in one line, without the final period and the words of AWS's client about itself."""
    text = " ".join(str(reason).split()).rstrip(". ")
    text = text.removeprefix("An HTTP Client raised an unhandled exception: ")
    return re.sub(r" ?\(_ssl\.c:\d+\)|\[Errno -?\d+\] ", "", text)
