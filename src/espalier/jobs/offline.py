"""Environment variables of jobs: no access to the Hugging Face Hub, and no progress bars of libraries.

Import this module before all others, because libraries read the variables when they are imported. The Snakefile must
not set them, because a workflow that imports it as a module would inherit them. Scripts that stage models or data
import `espalier.jobs.online` instead.
"""

import os

from espalier.jobs.interrupts import end_quietly_when_interrupted

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
os.environ.setdefault("TQDM_DISABLE", "1")  # jobs report their own progress (src/espalier/progress.py)
end_quietly_when_interrupted()
