"""The one place through which torchaudio is imported.

torchaudio's Linux wheel on the public index is a CUDA build. Beside a CPU-only torch its optional
compiled extension cannot load and `import torchaudio` raises OSError, although resampling, filter
banks and spectrograms are pure Python. Here the import is first tried as it is; if it fails that
way, a stand-in for `torchaudio._extension` that says "no extension" is registered and the import
repeated. The functions that need the extension (RNN-T loss, forced alignment) then raise when
called; nothing on disk is changed.

The import takes seconds, so the plugin itself does without it: `features.py` and `resample.py` are
plain torch and NumPy, and the tests compare them with torchaudio's.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from seqgen.errors import PluginError


def load_torchaudio(submodule: str = "") -> ModuleType:
    """`torchaudio`, or one of its submodules such as `functional` or `compliance.kaldi`.

    Raises:
        PluginError: torchaudio is not installed, or fails for another reason than its extension.
    """
    name = f"torchaudio.{submodule}" if submodule else "torchaudio"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise _unusable("torchaudio is not installed", error) from error
    except (OSError, ImportError, RuntimeError) as error:
        # OSError: a CUDA library is missing; RuntimeError: built for another CUDA version.
        return _load_without_extension(name, error)


def _load_without_extension(name: str, cause: Exception) -> ModuleType:
    _forget_torchaudio()
    sys.modules["torchaudio._extension"] = _stand_in()
    try:
        return importlib.import_module(name)
    except (OSError, ImportError, RuntimeError, AttributeError) as error:
        _forget_torchaudio()
        raise _unusable(f"torchaudio cannot be imported ({cause})", error) from error


def _forget_torchaudio() -> None:
    """Remove what a failed import left behind."""
    for module in [m for m in sys.modules if m.split(".")[0] == "torchaudio"]:
        del sys.modules[module]


def _stand_in() -> ModuleType:
    module = ModuleType("torchaudio._extension", "Stand-in: no compiled extension.")
    attributes: dict[str, Any] = {
        "_IS_TORCHAUDIO_EXT_AVAILABLE": False,
        "_IS_ALIGN_AVAILABLE": False,
        "_check_cuda_version": lambda: None,
        "fail_if_no_align": _needs_extension,
    }
    for attribute, value in attributes.items():
        setattr(module, attribute, value)
    return module


def _needs_extension(function: Callable[..., Any]) -> Callable[..., Any]:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise PluginError(
            f"torchaudio's {function.__name__} needs its compiled extension",
            why="this torchaudio was built for another torch (CUDA or CPU)",
            fix="install the torchaudio build that matches torch",
        )

    return fail


def _unusable(what: str, error: Exception) -> PluginError:
    return PluginError(what, why=str(error), fix="pip install 'seqgen-kit[speech]'")
