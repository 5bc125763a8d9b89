"""What may go wrong with a hub: whether to ask again, and if not, the sentence that says what to do."""

from __future__ import annotations

import re
import ssl
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import httpx2
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from agent.models.catalogue import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.models.catalogue import HubFolder

# The hub counts requests over five minutes, and says when the next may come.
_PATIENCE_S = 300.0
_TOO_MANY, _SERVER = 429, 500

_SENTENCES: Mapping[type[Exception], str] = {
    OfflineModeIsEnabled: "HF_HUB_OFFLINE is set, so nothing may be fetched: unset it, or use `edge-slm models add`",
    GatedRepoError: (
        "{repository} is given only to who accepted its terms: accept them at {host}/{repository}, set HF_TOKEN to a "
        "token of that account, and pull again"
    ),
    RevisionNotFoundError: (
        "{host} has no commit {revision} of {repository}: correct the catalogue's entry, or HF_ENDPOINT if it is an "
        "old mirror"
    ),
    RepositoryNotFoundError: (
        "{host} shows no repository {repository}: correct HF_ENDPOINT or the catalogue's entry, or set HF_TOKEN if it "
        "is a private one"
    ),
    httpx2.TooManyRedirects: (
        "{host} sends its requests in a circle: correct HF_ENDPOINT, or the proxy, and pull again"
    ),
}


class CutError(Exception):
    """A stream ended before its file did."""

    def __str__(self) -> str:
        return "it was cut again and again"


def pause(error: Exception, otherwise: float | None) -> float | None:
    """Return how long to wait before another attempt, in seconds; None if it is not to be made.

    Args:
        error: what the last attempt failed by.
        otherwise: how long, where the server does not say; None if there have been enough attempts.

    """
    if otherwise is None or isinstance(error, httpx2.UnsupportedProtocol) or _distrust(error):
        return None
    if not isinstance(error, HfHubHTTPError):
        return otherwise
    if error.response.status_code != _TOO_MANY and error.response.status_code < _SERVER:
        return None
    wait = _retry_after(error)
    return otherwise if wait is None else wait if wait <= _PATIENCE_S else None


@contextmanager
def told(host: str, source: HubFolder) -> Iterator[None]:
    """Say what goes wrong with a hub in a sentence that a person can act on.

    Raises:
        ModelError: in place of whatever the hub's client raised.

    """
    try:
        yield
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx2.HTTPError, httpx2.InvalidURL, CutError) as error:
        raise ModelError(_sentence(error, host, source)) from error


def no_hub(host: str) -> ModelError:
    """Build the error of an answer that makes no sense."""
    return ModelError(
        f"what answers at {host} is no model hub: log in where the network asks for it, or correct HF_ENDPOINT, and "
        "pull again"
    )


def _sentence(error: Exception, host: str, source: HubFolder) -> str:
    for kind, sentence in _SENTENCES.items():
        if isinstance(error, kind):
            return sentence.format(host=host, repository=source.repository, revision=source.revision[:7])
    if isinstance(error, HfHubHTTPError):
        return _refusal(error, host, source)
    if why := _distrust(error):
        return (
            f"{host} shows a certificate that this machine does not trust ({why}): if a proxy opens the connections "
            "here, add its authority to the system's, and pull again; never switch the check off"
        )
    return (
        f"the connection to {host} failed ({str(error) or type(error).__name__}): check the network, HTTPS_PROXY and "
        "HF_ENDPOINT, and pull again, which goes on from where it stopped; without a network, use `edge-slm models add`"
    )


def _refusal(error: HfHubHTTPError, host: str, source: HubFolder) -> str:
    status = error.response.status_code
    if status == _TOO_MANY:
        wait = _retry_after(error)
        when = "later" if wait is None else f"in {wait:,.0f} s"
        return f"{host} takes no more requests from here: pull again {when}; with HF_TOKEN it takes more"
    if status >= _SERVER:
        return f"{host} is in trouble (HTTP {status}): pull again later, and it goes on from where it stopped"
    return (
        f"{host} refused a part of {source.repository} (HTTP {status}): set HF_TOKEN if it is a private one, or "
        "correct the catalogue's entry"
    )


def _retry_after(error: HfHubHTTPError) -> float | None:
    """Read when a server may be asked again; the hub's own header counts, too (``"api";r=0;t=55``)."""
    headers = error.response.headers
    after = headers.get("Retry-After", "")
    if after.isdigit():
        return float(after)
    with suppress(ValueError, TypeError):
        # By the server's clock: a board without a battery has 1970 until somebody tells it.
        wait = parsedate_to_datetime(after) - parsedate_to_datetime(headers.get("Date", ""))
        return max(0.0, wait.total_seconds())
    spent = re.search(r";r=0;t=(\d+)", headers.get("RateLimit", ""))
    return float(spent[1]) if spent else None


def _distrust(error: BaseException) -> str | None:
    """Tell why a certificate was not trusted, if that is what an error comes from."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        cause = cause.__cause__ or cause.__context__
    return None
