"""Makes upstream's networks importable with torch and transformers alone.

Matcha's training stack (hydra, lightning) and torchaudio are imported by files whose only use here is a logger.
Import this module before any `cosyvoice` module.
"""

import logging
import sys
import types
import warnings

warnings.filterwarnings("ignore", category=FutureWarning)


def _stub(name: str, **names: object) -> None:
    module = types.ModuleType(name)
    module.__path__ = []
    vars(module).update(names)
    sys.modules.setdefault(name, module)


_stub("matcha.utils")
_stub("matcha.utils.pylogger", get_pylogger=logging.getLogger)
_stub("cosyvoice.utils.file_utils", logging=logging, convert_onnx_to_trt=None, export_cosyvoice2_vllm=None)
