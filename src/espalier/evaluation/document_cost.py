"""Number of tokens that a document of a task costs, after requests share their prefixes."""

from __future__ import annotations

from collections.abc import Mapping

from espalier.evaluation.tokenised_requests import RequestKey
from espalier.scoring.requests import Request
from espalier.scoring.tree import build_forest

_ANY = 2**31 - 1


def tokens_per_document(requests: Mapping[RequestKey, Request]) -> dict[str, float]:
    """Return the mean number of tokens of a document, by task.

    The choices of a document share their context, and documents share a common passage. Requests are not truncated to
    the context of a model.

    Args:
        requests: Requests of all tasks.

    Raises:
        UserError: If a context or continuation is empty.
    """
    of_task: dict[str, list[Request]] = {}
    documents: dict[str, set[int]] = {}
    for key, request in requests.items():
        of_task.setdefault(key.task, []).append(request)
        documents.setdefault(key.task, set()).add(key.doc_id)
    return {
        task: int(build_forest(found, limit=_ANY, width=_ANY, widest=_ANY).sizes.sum()) / len(documents[task])
        for task, found in of_task.items()
    }
