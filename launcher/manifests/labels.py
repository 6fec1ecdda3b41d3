"""Labels of a run's objects: by these its Jobs and pods are found."""

RUN_LABEL = "tuneyard.dev/run"
ATTEMPT_LABEL = "tuneyard.dev/attempt"
MANIFEST_LABEL = "tuneyard.dev/manifest"
STAGE_LABEL = "tuneyard.dev/stage"
KIND_LABEL = "tuneyard.dev/kind"
TRY_LABEL = "tuneyard.dev/try"
