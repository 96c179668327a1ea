"""What TensorBoard shows besides curves: hyperparameters with the scores they led to, and episodes to watch."""

from __future__ import annotations

import inspect
import io
import os
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from grpo_gym.callback_base import BaseCallback
from grpo_gym.evaluation import evaluate_policy
from grpo_gym.types import Array

NO_HYPERPARAMETERS = ("self", "env", "tensorboard_log", "verbose", "unknown", "_init_setup_model")
"""Parameters of an agent's constructor that cannot change what is learned."""


def writers(logger: Any) -> list[Any]:
    """Return the `SummaryWriter`s of a logger, ours or stable-baselines3's."""
    return [output.writer for output in logger.output_formats if hasattr(output, "writer")]


class HParamCallback(BaseCallback):
    """Show the agent's hyperparameters in TensorBoard's HPARAMS tab, beside the last values of some metrics.

    They are written when training starts, so that a run which is killed shows what it came to.

    Args:
        metrics: keys that are logged; see docs/log_keys.md.
        hyperparameters: more of them, or other values; numbers, texts or truth values.
    """

    def __init__(
        self,
        metrics: Sequence[str] = ("rollout/ep_rew_mean", "eval/mean_reward"),
        hyperparameters: dict[str, bool | int | float | str] | None = None,
    ):
        super().__init__()
        self.metrics, self.hyperparameters = tuple(metrics), hyperparameters or {}

    def _on_training_start(self) -> None:
        from torch.utils.tensorboard.summary import hparams

        boards = writers(self.logger)
        if not boards:
            raise ValueError("HParamCallback writes for TensorBoard, which is not used: give the agent tensorboard_log")
        names = [
            name for name in inspect.signature(type(self.model).__init__).parameters if name not in NO_HYPERPARAMETERS
        ]
        values = {name: getattr(self.model, name) for name in names if hasattr(self.model, name)}
        plain = {name: x if isinstance(x, bool | int | float | str) else str(x) for name, x in values.items()}
        make: Any = hparams  # torch's own annotations know less than it takes
        summaries = make({**plain, **self.hyperparameters}, dict.fromkeys(self.metrics, 0.0))
        for board in boards:
            for summary in summaries:
                board.file_writer.add_summary(summary)

    def _on_step(self) -> bool:
        return True


class VideoCallback(BaseCallback):
    """Play an episode every `video_freq` calls and show it in TensorBoard, in the IMAGES tab, as a moving picture.

    Training is not disturbed: the environment is another.

    Args:
        env: an id, a spec, or a function that makes an environment with `render_mode="rgb_array"`.
        video_freq: in calls: vector steps, or events of `EveryNTimesteps`.
        folder: write `{num_timesteps}_steps.gif` there too; made if need be.
        deterministic: the policy's most probable actions rather than samples.
        seed: of the episode, always the same.
        max_frames: a longer episode is cut here.
        max_fps: the picture moves at the environment's `metadata["render_fps"]`, at most at this.

    Raises:
        ValueError: if `video_freq` or `max_frames` is below 1; when training starts, if there is neither a folder
            nor TensorBoard to write to, or the environment does not draw arrays.
    """

    def __init__(
        self,
        env: str | EnvSpec | Callable[[], gym.Env[Any, Any]],
        video_freq: int,
        folder: str | PathLike[str] | None = None,
        deterministic: bool = True,
        seed: int = 0,
        max_frames: int = 300,
        max_fps: float = 30.0,
    ):
        super().__init__()
        if min(video_freq, max_frames) < 1:
            raise ValueError(f"video_freq={video_freq} and max_frames={max_frames}, expected at least 1")
        self.env, self.video_freq, self.folder = env, video_freq, folder
        self.deterministic, self.seed, self.max_frames, self.max_fps = deterministic, seed, max_frames, max_fps

    def _on_training_start(self) -> None:
        if self.folder is None and not writers(self.logger):
            raise ValueError("VideoCallback has nowhere to write to: give it a folder, or the agent tensorboard_log")
        if self.folder is not None:
            os.makedirs(self.folder, exist_ok=True)
        self._make().close()

    def _make(self) -> gym.Env[Any, Any]:
        made = self.env() if callable(self.env) else gym.make(self.env, render_mode="rgb_array")
        if made.render_mode != "rgb_array":
            made.close()
            raise ValueError(f"{made} has render_mode={made.render_mode!r}, expected 'rgb_array' for a video")
        return made

    def _on_step(self) -> bool:
        if self.n_calls % self.video_freq == 0:
            self.record()
        return True

    def record(self) -> None:
        """Play an episode and write it."""
        frames: list[Array] = []
        env = self._make()
        try:
            evaluate_policy(
                self.model,
                env,
                deterministic=self.deterministic,
                callback=lambda locals_, globals_: frames.append(np.asarray(env.render())),
                seeds=[self.seed],
                max_episode_steps=self.max_frames,
                warn=False,
            )
            fps = min(float(env.metadata.get("render_fps", self.max_fps)), self.max_fps)
        finally:
            env.close()
        picture = moving_picture(frames, fps)
        if self.folder is not None:
            Path(self.folder, f"{self.model.num_timesteps}_steps.gif").write_bytes(picture)
        for board in writers(self.logger):
            _show(board, "video/episode", picture, frames[0].shape, self.model.num_timesteps)


def moving_picture(frames: Sequence[Array], fps: float) -> bytes:
    """Make a GIF that plays for ever.

    Args:
        frames: `[height, width, 3]` each, uint8.
        fps: frames a second.
    """
    from PIL import Image  # comes with TensorBoard

    # Pillow's own way to a palette takes 6 times as long; this one is off by 1 of 255 on average
    first, *others = (Image.fromarray(frame).quantize(method=Image.Quantize.FASTOCTREE) for frame in frames)
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=1000 / fps, loop=0)
    return file.getvalue()


def _show(board: Any, tag: str, picture: bytes, shape: Sequence[int], step: int) -> None:
    from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

    image = Summary.Image(height=shape[0], width=shape[1], colorspace=3, encoded_image_string=picture)
    board.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)
