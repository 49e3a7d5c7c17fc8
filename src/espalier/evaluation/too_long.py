"""Documents that are longer than the model's context, for `evaluation.too_long: skip`.

A document is too long if one of its requests would be truncated. All of its choices are then left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from espalier.evaluation.tokenised_requests import RequestKey, TokenisedRequests
from espalier.scoring.requests import is_truncated

T = TypeVar("T")


def leave_out_too_long(
    requests: Mapping[RequestKey, T], is_too_long: Callable[[T], bool]
) -> tuple[dict[RequestKey, T], dict[str, int]]:
    """Leave out the documents that do not fit in a context.

    Args:
        requests: Requests or prompts of all documents.
        is_too_long: Returns whether a request or prompt is longer than the context allows.

    Returns:
        The requests of the other documents, in the same order, and the number of documents left out, by task.
    """
    too_long = {key[:2] for key, request in requests.items() if is_too_long(request)}
    fitting = {key: request for key, request in requests.items() if key[:2] not in too_long}
    return fitting, dict(Counter(task for task, _ in too_long))


def without_too_long(requests: TokenisedRequests, limit: int) -> TokenisedRequests:
    """Return the requests of the documents that fit in a context, with the number of the others by task.

    Args:
        requests: All requests of an evaluation.
        limit: The model's context, in tokens.
    """
    fitting, n_skipped = leave_out_too_long(requests.requests, lambda request: is_truncated(request, limit))
    return replace(requests, requests=fitting, n_skipped=n_skipped)
