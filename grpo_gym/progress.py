"""A progress bar for `learn`."""

from __future__ import annotations

from typing import Any

import numpy as np

from grpo_gym.callback_base import BaseCallback
from grpo_gym.extras import need


class ProgressBarCallback(BaseCallback):
    """Show environment steps of the total, steps a second, and the recent mean episode reward.

    The mean is over the agent's `ep_info_buffer`, if it has one.

    Raises:
        ImportError: if tqdm is not installed; the message names the extra.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tqdm: Any = need("tqdm", "progress", "the progress bar").tqdm
        self._bar: Any = None

    def _on_training_start(self) -> None:
        self._bar = self._tqdm(
            initial=self.model.num_timesteps,
            total=self.model._total_timesteps,
            unit="step",
            unit_scale=True,
            dynamic_ncols=True,
        )

    def _on_step(self) -> bool:
        if np.any(self.locals.get("dones", False)):
            self._show_reward()
        # The last rollout is played to its end, beyond the total: the bar is full then, not broken.
        self._bar.total = max(self._bar.total, self.num_timesteps)
        self._bar.update(self.num_timesteps - self._bar.n)
        return True

    def _on_rollout_end(self) -> None:
        self._show_reward()

    def _show_reward(self) -> None:
        episodes = getattr(self.model, "ep_info_buffer", None)
        if episodes:
            mean = np.mean([episode["r"] for episode in episodes])
            self._bar.set_postfix_str(f"reward={mean:.4g}", refresh=False)

    def _on_training_end(self) -> None:
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.refresh()
            bar.close()
