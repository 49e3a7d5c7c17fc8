"""Import this before a hub's library to let it use the network: the Snakefile switches hubs off for all other jobs."""

import os

os.environ.update(HF_HUB_OFFLINE="0", HF_DATASETS_OFFLINE="0")
