"""Import this first in a job that stages: libraries may use the network, and their progress bars stay silent.

Libraries read these variables while they are imported, so this import stands before all others. All other scripts
import `espalier.jobs.offline`.
"""

import os

from espalier.jobs.interrupts import end_quietly_when_interrupted

os.environ.update(HF_HUB_OFFLINE="0", HF_DATASETS_OFFLINE="0")
os.environ.setdefault("TQDM_DISABLE", "1")  # jobs report their own progress (src/espalier/progress.py)
end_quietly_when_interrupted()
