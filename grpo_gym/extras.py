"""Libraries that only some users need, imported when they are needed."""

from __future__ import annotations

import importlib
from types import ModuleType


def need(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a library of an extra.

    Args:
        module: its import name.
        extra: the extra of this package that installs it.
        purpose: what it is needed for.

    Raises:
        ImportError: if it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs {module.partition('.')[0]}, which is not installed: pip install 'grpo_gym[{extra}]'"
        ) from error
