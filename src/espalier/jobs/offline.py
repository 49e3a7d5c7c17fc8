"""Import this first in a job: libraries then ask no hub, and their progress bars stay silent.

Libraries read these variables while they are imported, so this import stands before all others. The Snakefile must not
set them: a workflow that imports it as a module would inherit them. Staging scripts import `espalier.jobs.online`.
"""

import os

from espalier.jobs.interrupts import end_quietly_when_interrupted

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
os.environ.setdefault("TQDM_DISABLE", "1")  # jobs report their own progress (src/espalier/progress.py)
end_quietly_when_interrupted()
