"""The environment of a stage's process: an allow-list, with secrets only for the kinds of stage that need them.

A shell holds more than Tuneyard needs: tokens of other services, passwords, keys. A stage loads models and data that
others made, so it gets none of them. docs/security.md says which variables pass.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from launcher.spec.plan import Stage
from launcher.spec.providers import providers
from launcher.spec.stages import HostedPredictSettings, TuneSettings
from launcher.spec.tasks import INPUT_PREFIX, SCORER_PREFIX

_SYSTEM = re.compile(
    r"(PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|TEMP|TMP|VIRTUAL_ENV|CONDA_PREFIX|LD_LIBRARY_PATH"
    r"|PYTHON\w+|XDG_\w+|TUNEYARD_\w+|OMP_\w+|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE"
    r"|(ALL|HTTPS?|NO)_PROXY|(all|https?|no)_proxy)\Z"
)
#: Settings of the libraries that train and answer; a stage with the code of a user does without.
_LIBRARIES = re.compile(
    r"(CUDA\w*|NVIDIA_\w+|NCCL_\w+|GLOO_\w+|TORCH\w*|PYTORCH_\w+|TRITON_\w+|DS_\w+|DEEPSPEED_\w+|ROCM_\w+|HIP_\w+|HSA_\w+"
    r"|MKL_\w+|OPENBLAS_\w+|KMP_\w+|GOMP_\w+|NUMEXPR_\w+|TOKENIZERS_\w+|TRANSFORMERS_\w+|SAFETENSORS_\w+|BNB_\w+"
    r"|HF_(HOME|ENDPOINT|HUB_\w+|XET_\w+|ASSETS_CACHE)|HUGGINGFACE_HUB_CACHE)\Z"
)
#: Tokens and settings of what a fetch stage downloads with.
_FETCH = re.compile(r"(HF_TOKEN|HUGGING_FACE_HUB_TOKEN|PIP_\w+|NETRC)\Z")
_STORE = re.compile(r"AWS_\w+\Z")
#: Read by the OpenAI client itself, beside the key.
_HOSTED = re.compile(r"OPENAI_(ORG_ID|PROJECT_ID)\Z")


def stage_environment(
    stage: Stage, store_address: str, environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The variables of `environment` that the stage's process gets. `AWS_…` only for a store on S3."""
    allowed = [_SYSTEM]
    if store_address.startswith("s3:"):
        allowed.append(_STORE)
    has_user_code = any(name.startswith((INPUT_PREFIX, SCORER_PREFIX)) for name in stage.inputs)
    if not has_user_code:
        allowed.append(_LIBRARIES)
        if stage.kind == "fetch":
            allowed.append(_FETCH)
        if isinstance(stage.typed_settings(), TuneSettings | HostedPredictSettings):
            allowed += [_HOSTED, _provider_keys()]
    return {
        name: value for name, value in environment.items() if any(pattern.match(name) for pattern in allowed)
    }


def _provider_keys() -> re.Pattern[str]:
    names = [
        re.escape(name)
        for provider in providers().values()
        for name in (provider.key_variable, provider.key_file_variable)
        if name is not None
    ]
    return re.compile(rf"({'|'.join(names)})\Z")
