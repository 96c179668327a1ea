"""What an env step costs as things grow, and whether memory grows while nothing else does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.speed.case import Round, Sizes, spend
from benchmarks.speed.fresh import fresh
from benchmarks.speed.throughput import collect_once
from grpo_gym import GRPO, BaseCallback
from grpo_gym.vec import find_spec

N_SAMPLES = 20
"""Looks at memory along a run."""


@dataclass(frozen=True)
class Setting:
    """An agent of some size.

    Attributes:
        env_id: Gymnasium id.
        n_slots: episodes in play at once.
        episodes_per_slot: episodes of an iteration, as a multiple of the slots; the product is divisible by 4.
        net_arch: hidden layers' widths.
        episode_steps: the environment's time limit; None for its own.
    """

    env_id: str = "CartPole-v1"
    n_slots: int = 64
    episodes_per_slot: int = 4
    net_arch: Sequence[int] = (64, 64)
    episode_steps: int | None = None


SLOTS = {f"n_envs={n}": Setting(n_slots=n) for n in (1, 4, 16, 64, 256, 1024, 4096)}
NETWORKS = {f"net_arch=[{n}, {n}]": Setting(net_arch=(n, n)) for n in (64, 256, 1024)}
LENGTHS = {
    f"max_episode_steps={n}": Setting("Pendulum-v1", n_slots=16, episodes_per_slot=1, episode_steps=n)
    for n in (10, 100, 1_000, 10_000)
}


def memory(what: str) -> float:
    """Return how much memory this process has in use ("VmRSS") or has ever had ("VmHWM"), in MiB.

    `resource.getrusage` will not do: its peak includes that of the process that started this one.

    Raises:
        RuntimeError: where there is no /proc.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        raise RuntimeError(f"memory is read from {status}, which only Linux has: leave this case out")
    line = next(line for line in status.read_text().splitlines() if line.startswith(f"{what}:"))
    return int(line.split()[1]) / 1024


def cost(setting: Mapping[str, object], seconds: float) -> dict[str, float]:
    """Measure one agent in this process: its cost an env step, and the peak of its memory.

    Args:
        setting: fields of a `Setting`.
        seconds: least time of a measurement.
    """
    chosen = Setting(**setting)  # type: ignore[arg-type]
    spec = find_spec(chosen.env_id)
    spec.max_episode_steps = chosen.episode_steps or spec.max_episode_steps
    agent = GRPO(
        "MlpPolicy",
        spec,
        n_groups=chosen.n_slots * chosen.episodes_per_slot // 4,
        group_size=4,
        n_envs=chosen.n_slots,
        n_epochs=1,
        policy_kwargs={"net_arch": chosen.net_arch},
        seed=0,
        device="cpu",
    )
    agent.learn(1)
    collecting = spend(lambda: collect_once(agent), seconds).each("step")
    learning = spend(lambda: agent.learn(1).num_timesteps, seconds).each("step")
    return {
        **{f"collect, {unit}": value for unit, value in collecting.items()},
        **{f"learn, {unit}": value for unit, value in learning.items()},
        "peak RSS, MiB": memory("VmHWM"),
    }


def scaling(settings: Mapping[str, Setting], sizes: Sizes) -> Round:
    """Measure each setting in a process of its own."""
    return lambda number: {
        name: fresh("benchmarks.speed.growth:cost", asdict(setting), sizes.seconds)
        for name, setting in settings.items()
    }


class _Watch(BaseCallback):
    """Reads the memory in use at equal distances."""

    def __init__(self, interval: float):
        super().__init__()
        self.interval = interval
        self.samples: dict[int, float] = {}

    def _on_step(self) -> bool:
        if self.num_timesteps >= (len(self.samples) + 1) * self.interval:
            self.samples[self.num_timesteps] = memory("VmRSS")
        return len(self.samples) < N_SAMPLES


def residence(seed: int, steps: int) -> list[tuple[int, float]]:
    """Train on CartPole with the default arguments; return `N_SAMPLES` pairs (env steps, MiB in use)."""
    watch = _Watch(steps / N_SAMPLES)
    GRPO("MlpPolicy", "CartPole-v1", seed=seed, device="cpu").learn(steps, callback=watch)
    return list(watch.samples.items())


def watching(sizes: Sizes) -> Round:
    """Watch the memory of a long run, in a process of its own."""

    def one_round(number: int) -> dict[str, dict[str, float]]:
        samples = fresh("benchmarks.speed.growth:residence", number, sizes.memory_steps)
        half, end = samples[len(samples) // 2 - 1][1], samples[-1][1]
        return {
            **{f"after {steps:,} steps": {"MiB": value} for steps, value in samples},
            "half way": {"MiB": half},
            "end": {"MiB": end},
            "growth in the last half": {"MiB": end - half},
        }

    return one_round
