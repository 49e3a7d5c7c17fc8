"""Log-likelihoods of continuations under a causal language model, with shared prefixes computed once.

`requests` defines requests, `tree` merges requests with a common prefix, `pack` puts the trees into batches,
`attention` builds the masks, `head` computes log-probabilities, and `engine` runs the model. Besides modules of this
project, the package needs only numpy, torch and transformers.
"""
