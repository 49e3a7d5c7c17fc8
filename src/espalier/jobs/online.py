"""Environment variables of jobs that stage models or data: network access, and no progress bars of libraries.

Import this module before all others, because libraries read the variables when they are imported. All other scripts
import `espalier.jobs.offline` instead.
"""

import os

from espalier.jobs.interrupts import end_quietly_when_interrupted

os.environ.update(HF_HUB_OFFLINE="0", HF_DATASETS_OFFLINE="0")
os.environ.setdefault("TQDM_DISABLE", "1")  # jobs report their own progress (src/espalier/progress.py)
end_quietly_when_interrupted()
