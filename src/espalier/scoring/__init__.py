"""Log-likelihoods of continuations under a causal language model, each shared token computed once.

`requests` says what is scored, `tree` merges requests that begin alike, `pack` lays the trees into batches, `attention`
makes the masks, `engine` runs the model. Needs numpy, torch and transformers only.
"""

from espalier.scoring.engine import score_requests
from espalier.scoring.requests import Request, Score, is_cut

__all__ = ["Request", "Score", "is_cut", "score_requests"]
