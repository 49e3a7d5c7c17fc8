"""Version number of each expensive stage.

The rule of a stage has the number in its `params`. Increase a number only if the results of the stage change: this
reruns the stage and everything that depends on it. This module imports nothing, so that importing it is fast.
"""

STAGE_MODEL = 1
STAGE_DATASET = 1
STAGE_TEXT = 1
CHECK_MODEL = 4
MAKE_WORLD = 1
TRAIN_SANDBOX_TOKENIZER = 2
TRAIN_SANDBOX_MODEL = 1
TOKENIZE_REQUESTS = 1
TOKENIZE_REQUESTS_WITH_BOS = 2  # where evaluation.add_bos is true
CHECK_CALIBRATION = 2
COLLECT_GRADIENTS = 2
MEASURE_IMPORTANCE = 1
MEASURE_WEIGHTS = 1
MEASURE_PRIORS = 2
PLAN = 1
EVALUATE = 3
EXPORT_GGUF = 1
EXPORT_CHECKPOINT = 1
MEASURE_INFERENCE = 1
CHECK_RECOVERY = 1
RECOVER = 1
RECOVER_FULL = 1
