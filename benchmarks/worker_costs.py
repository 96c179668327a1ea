"""What collection in workers costs, piece by piece: the numbers that docs/scaling.md reckons with.

OMP_NUM_THREADS=1 python -m benchmarks.worker_costs HalfCheetah-v5 --ray

Processor time where one process works (a busy machine does not count against it), wall-clock time of calls between
processes; medians. Minibatches of 256, 4 passes, live peers.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import cloudpickle
import numpy as np
import torch

from grpo_gym import GRPO
from grpo_gym.episodes import concatenate
from grpo_gym.groups import plan
from grpo_gym.packed_steps import side_by_side
from grpo_gym.processes import Processes
from grpo_gym.rollout import Collector
from grpo_gym.workers import Crew, Task, Worker, pack_work

N_GROUPS, GROUP_SIZE = 2, 8
"""Of a task."""


def seconds(work: Callable[[], Any], repeats: int, clock: Callable[[], float] = time.process_time) -> float:
    """Return the median time that the work takes."""
    found = []
    for _ in range(repeats):
        started = clock()
        work()
        found.append(clock() - started)
    return statistics.median(found)


def costs(env: str, net_arch: list[int], repeats: int) -> dict[str, float]:
    """Measure both sides in this process: a worker with one task, and the learner with two of its answers.

    Args:
        env: id of the environment.
        net_arch: hidden layers of the policy.
        repeats: of each measurement.

    Returns:
        Bytes, and seconds of processor time.
    """
    agent = GRPO(
        "MlpPolicy",
        env,
        n_groups=2 * N_GROUPS,
        group_size=GROUP_SIZE,
        batch_size=256,
        n_epochs=4,
        baseline="live_peers",
        seed=0,
        policy_kwargs={"net_arch": net_arch},
    )
    slots, actor = agent.env, agent.policy.actor()
    assert slots is not None
    n_slots = N_GROUPS * GROUP_SIZE
    queue = plan(np.random.default_rng(0), N_GROUPS, GROUP_SIZE).queue()
    packed = cloudpickle.dumps(Task(cloudpickle.dumps(actor), queue, None, None))
    worker = Worker(pack_work(env, np.array([n_slots]), None)[0])
    answer = worker.answer(packed)
    n_steps = cloudpickle.loads(answer).rollout.n_steps

    def receive() -> None:
        parts = [cloudpickle.loads(answer) for _ in range(2)]
        concatenate([part.rollout for part in parts])
        for _ in side_by_side([part.steps for part in parts]):
            pass

    some = np.arange(n_slots)
    actions = [np.array([slots.action_space.sample() for _ in some]) for _ in range(5)]

    def play(n_repeats: int = 1) -> None:
        slots.start(some, some)
        for action in actions * n_repeats:
            slots.step(some, action)

    collector, whole = Collector(slots), plan(np.random.default_rng(0), 2 * N_GROUPS, GROUP_SIZE)
    collected = collector.collect(actor, whole.queue())
    assert collected is not None
    collecting = seconds(lambda: collector.collect(actor, whole.queue()), repeats) / collected.n_steps

    def learn() -> float:
        before, started = agent.num_timesteps, time.process_time()
        agent.learn(1, reset_num_timesteps=False)
        return (time.process_time() - started) / (agent.num_timesteps - before)

    learn()
    return {
        "bytes: a task (weights and seeds)": len(packed),
        "bytes: a step that comes back": len(answer) / n_steps,
        "s: pack and unpack the weights": seconds(lambda: cloudpickle.loads(cloudpickle.dumps(actor)), repeats),
        "s/step: the environment alone": seconds(lambda: play(2), repeats) / (2 * len(actions) * n_slots),
        "s/step: the worker, all in all": seconds(lambda: worker.answer(packed), repeats) / n_steps,
        "s/step: one process, collection": collecting,
        "s/step: the learner, unpack and join": seconds(receive, repeats) / (2 * n_steps),
        "s/step: the learner, compare and update": statistics.median(learn() for _ in range(repeats)) - collecting,
    }


def call(crew: Crew, size: int, repeats: int) -> float:
    """Return the wall-clock seconds of a call with so many bytes, answered by a short error."""
    question = bytes(size)

    def ask() -> None:
        crew.send(0, question)
        crew.receive(crew.wait([0]))

    ask()
    return seconds(ask, repeats, time.perf_counter)


def main() -> None:
    """Print one line a cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("envs", nargs="+", metavar="ENV", help="ids of environments")
    parser.add_argument("--net-arch", type=int, nargs="+", default=[64, 64], help="hidden layers")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement")
    parser.add_argument("--ray", action="store_true", help="calls of Ray actors too (starts Ray here)")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for env in chosen.envs:
        print(env, chosen.net_arch)
        for name, cost in costs(env, chosen.net_arch, chosen.repeats).items():
            print(f"    {name:44} {cost:,.0f}" if name.startswith("bytes") else f"    {name:44} {1e6 * cost:,.1f} µs")
    crews: dict[str, Crew] = {"process": Processes([b""])}
    if chosen.ray:
        from grpo_gym.ray_actors import RayActors

        crews["Ray actor"] = RayActors()([b""])
    for name, crew in crews.items():
        for size in (0, 1_000_000):
            print(f"    call of a {name} with {size:,} bytes: {1e3 * call(crew, size, 100):.2f} ms")
        crew.close()


if __name__ == "__main__":
    main()
