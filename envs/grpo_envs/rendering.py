"""Pictures and text of the games, drawn with NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

MODES = ("ansi", "rgb_array")
TILE = 32
BAR_HEIGHT = 96
_FOG, _HIT, _MISS, _LINE = (38, 84, 124), (214, 69, 65), (158, 197, 226), 255
_BACKGROUND, _BAR, _PULLED = 255, (158, 197, 226), (214, 69, 65)


def metadata() -> dict[str, Any]:
    """Return what Gymnasium asks of an environment's `metadata`; a new dictionary for each class."""
    return {"render_modes": list(MODES), "render_fps": 4}


def check_render_mode(render_mode: str | None, modes: Sequence[str] = MODES) -> None:
    """Raise ValueError unless `render_mode` is None or one of `modes`."""
    if render_mode is not None and render_mode not in modes:
        raise ValueError(f"render_mode={render_mode!r} is not known; choose from None, {', '.join(modes)}")


def warn_no_render_mode(modes: Sequence[str] = MODES) -> None:
    """Say what Gymnasium's own environments say when `render()` has no mode to draw in."""
    choice = " or ".join(f'"{mode}"' for mode in modes)
    gym.logger.warn(f"render() draws nothing without render_mode={choice} at construction")


def board_text(view: npt.NDArray[np.int8]) -> str:
    """Write a `[size, size]` view of a board: · fog, o miss, X hit."""
    return "\n".join(" ".join("o·X"[cell + 1] for cell in row) for row in view.tolist())


def board_image(view: npt.NDArray[np.int8]) -> Image:
    """Draw a `[size, size]` view of a board as `[32·size, 32·size, 3]`."""
    colours = np.array([_MISS, _FOG, _HIT], dtype=np.uint8)
    image: Image = np.repeat(np.repeat(colours[view + 1], TILE, axis=0), TILE, axis=1)
    image[::TILE] = image[:, ::TILE] = _LINE
    return image


def bars_image(heights: npt.NDArray[np.float64], pulled: int) -> Image:
    """Draw K heights in [0, 1] as bars, `[96, 32·K, 3]`; bar `pulled` stands out, none if it is −1."""
    image: Image = np.full((BAR_HEIGHT, TILE * len(heights), 3), _BACKGROUND, dtype=np.uint8)
    for arm, height in enumerate(heights):
        # one pixel at least, so that an arm worth nothing is still seen
        top = BAR_HEIGHT - max(1, round(float(height) * BAR_HEIGHT))
        image[top:, TILE * arm + 2 : TILE * (arm + 1) - 2] = _PULLED if arm == pulled else _BAR
    return image
