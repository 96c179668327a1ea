import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from tensorboard.plugins.hparams import plugin_data_pb2  # type: ignore[import-untyped]

from grpo_gym.callbacks import HParamCallback, VideoCallback
from tests.agents import digest, small
from tests.toys import IdentityDiscrete, Walk

PIL_Image = pytest.importorskip("PIL.Image")


def board(folder: Path) -> Any:
    everything = {"histograms": 0, "images": 0, "scalars": 0}
    return EventAccumulator(str(folder / "GRPO_1"), size_guidance=everything).Reload()


def hparams(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The hyperparameters of a run, and the tags of its metrics, as TensorBoard's plugin reads them."""
    found = board(folder).PluginTagToContent("hparams")
    read = {tag: plugin_data_pb2.HParamsPluginData.FromString(content) for tag, content in found.items()}
    start = read["_hparams_/session_start_info"].session_start_info
    experiment = read["_hparams_/experiment"].experiment
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    return values, [metric.name.tag for metric in experiment.metric_infos]


def test_hyperparameters_stand_beside_metrics_that_are_logged(tmp_path: Path) -> None:
    callback = HParamCallback(["rollout/ep_rew_mean"], {"wind": 0.5})
    small(IdentityDiscrete, tensorboard_log=tmp_path, learning_rate="lin_0.01", n_steps=None).learn(48, callback)
    values, metrics = hparams(tmp_path)
    expected = {"group_size": 3.0, "gamma": 0.99, "learning_rate": "lin_0.01", "seed": 0.0, "n_steps": "None"}
    assert {name: values[name] for name in expected} == expected
    assert values["normalize_observations"] == 0
    assert values["policy_kwargs"] == "{'net_arch': [8]}"
    assert values["wind"] == 0.5
    assert {"env", "tensorboard_log", "verbose"} & set(values) == set()
    assert metrics == ["rollout/ep_rew_mean"]
    assert [event.step for event in board(tmp_path).Scalars("rollout/ep_rew_mean")] == [24, 48]


def test_hyperparameters_without_tensorboard_are_an_error() -> None:
    with pytest.raises(ValueError, match="tensorboard_log"):
        small(IdentityDiscrete).learn(24, HParamCallback())


def test_advantages_are_a_histogram_of_all_steps(tmp_path: Path) -> None:
    small(IdentityDiscrete, tensorboard_log=tmp_path).learn(48)
    events = board(tmp_path).Histograms("rollout/advantages")
    assert [(event.step, event.histogram_value.num) for event in events] == [(24, 24), (48, 24)]


# --- videos ----------------------------------------------------------------------------------------------------


class Drawn(Walk):
    """Draws how many steps were taken, as the shade of a small picture."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}  # noqa: RUF012 Gymnasium's own way
    render_mode = "rgb_array"
    closed = 0

    def render(self) -> Any:
        return np.full((4, 6, 3), 40 * self.t, np.uint8)

    def close(self) -> None:
        Drawn.closed += 1


class Lasting(Drawn):
    def step(self, action: Any) -> Any:
        self.x = 0.0
        observation, reward, _, cut, info = super().step(action)
        return observation, reward, False, cut, info


def shades(picture: bytes) -> list[int]:
    image = PIL_Image.open(io.BytesIO(picture))
    assert image.size == (6, 4)
    assert image.info["duration"] == 30  # at most 30 frames a second; hundredths are all that a GIF knows
    found = []
    for frame in range(image.n_frames):
        image.seek(frame)
        found.append(int(np.asarray(image.convert("RGB"))[0, 0, 0]))
    return found


@pytest.mark.parametrize(("max_frames", "expected"), [(300, [40, 80, 120, 160, 200, 240]), (2, [40, 80])])
def test_an_episode_is_shown_in_tensorboard_and_in_the_folder(
    max_frames: int, expected: list[int], tmp_path: Path
) -> None:
    callback = VideoCallback(Lasting, video_freq=6, folder=tmp_path / "videos", max_frames=max_frames)
    small(Walk, tensorboard_log=tmp_path, max_episode_steps=6).learn(50, callback)
    pictures = sorted((tmp_path / "videos").iterdir(), key=lambda path: int(path.stem.split("_")[0]))
    shown = board(tmp_path).Images("video/episode")
    assert len(pictures) >= 1
    assert [path.name for path in pictures] == [f"{event.step}_steps.gif" for event in shown]
    for path, event in zip(pictures, shown, strict=True):
        assert path.read_bytes() == event.encoded_image_string
        assert shades(path.read_bytes()) == expected
        assert (event.height, event.width) == (4, 6)


def test_a_video_changes_nothing_and_closes_what_it_made(tmp_path: Path) -> None:
    Drawn.closed = 0
    filmed, twin = small(Walk), small(Walk)
    filmed.learn(50, VideoCallback(Drawn, 2, tmp_path, deterministic=True))
    twin.learn(50)
    assert digest(filmed) == digest(twin)
    assert Drawn.closed == len(list(tmp_path.iterdir())) + 1


def test_an_environment_is_made_of_its_id(tmp_path: Path) -> None:
    pytest.importorskip("pygame")
    agent = small("CartPole-v1", max_episode_steps=3)
    agent.learn(18, VideoCallback("CartPole-v1", 3, tmp_path, max_frames=2))
    (path,) = tmp_path.iterdir()
    assert PIL_Image.open(io.BytesIO(path.read_bytes())).size == (600, 400)


@pytest.mark.parametrize(
    ("callback", "said"),
    [
        (lambda folder: VideoCallback(Drawn, 1), "nowhere to write to"),
        (lambda folder: VideoCallback(Walk, 1, folder), "render_mode=None, expected 'rgb_array'"),
        (lambda folder: VideoCallback(Drawn, 0, folder), "video_freq=0"),
    ],
)
def test_a_video_that_cannot_be_made_is_an_error_before_training(callback: Any, said: str, tmp_path: Path) -> None:
    agent = small(Walk)
    with pytest.raises(ValueError, match=said):
        agent.learn(24, callback(tmp_path))
    assert agent.num_timesteps == 0
