"""Documents that are longer than the model's context, for `evaluation.too_long: skip`.

A document is too long if one of its requests would be truncated. All of its choices are then left out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from espalier.evaluation.tokenised_requests import TokenisedRequests
from espalier.scoring.requests import is_truncated


def without_too_long(requests: TokenisedRequests, limit: int) -> TokenisedRequests:
    """Return the requests of the documents that fit in a context, with the number of the others by task.

    Args:
        requests: All requests of an evaluation.
        limit: The model's context, in tokens.
    """
    too_long = {key[:2] for key, request in requests.requests.items() if is_truncated(request, limit)}
    fitting = {key: request for key, request in requests.requests.items() if key[:2] not in too_long}
    return replace(requests, requests=fitting, n_skipped=dict(Counter(task for task, _ in too_long)))
