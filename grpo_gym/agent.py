"""The agent: stable-baselines3's face, and the loop that joins the parts."""

from __future__ import annotations

import inspect
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from grpo_gym import arguments
from grpo_gym.acting import remembers
from grpo_gym.adapters import add_adapters, merge_adapters
from grpo_gym.advantages import silence_narrow_groups
from grpo_gym.baselines import BASELINES, BOOTSTRAPPING, Comparison
from grpo_gym.callbacks import BaseCallback, CallbackList, as_callback
from grpo_gym.checkpoint import checkpoint_path, read_checkpoint, replace_file, write_checkpoint
from grpo_gym.collectors import MakeCrew
from grpo_gym.export import exported
from grpo_gym.faults import TieWatch, explain
from grpo_gym.layout import Layout
from grpo_gym.logger import Logger, configure, open_run, record_iteration
from grpo_gym.optimizers import make_optimizer
from grpo_gym.policies import find_policy, make_policy
from grpo_gym.policy_model import PolicyModel
from grpo_gym.prediction import Prediction
from grpo_gym.progress import ProgressBarCallback
from grpo_gym.recurrent import Recollection
from grpo_gym.references import Reference, require_whole_episodes
from grpo_gym.reports import episode_stats, rollout_stats, shaping_stats, update_stats
from grpo_gym.rewards import RewardPart
from grpo_gym.rollout import Played
from grpo_gym.sampler import Sampler
from grpo_gym.sampling import collect_groups, warn_of_rare_updates, warn_of_unequal_starts
from grpo_gym.schedules import as_schedule
from grpo_gym.shaping import select_teaching, shape_rewards
from grpo_gym.state import check_spaces, checkpoint_of, restore, set_parameters, stored_arguments
from grpo_gym.types import DEFAULT_HORIZON, Batch, Compared, Rollout, Schedule, Slots
from grpo_gym.update import UpdateSettings, make_batch, update
from grpo_gym.variants import takes_variant, with_preset
from grpo_gym.vec import EnvLike
from grpo_gym.vec_face import VecFace
from grpo_gym.vine import make_vine
from grpo_gym.visited import Visited


class GRPO:
    """Group Relative Policy Optimization for Gymnasium environments: no critic, a group to compare with.

    Each iteration plays `n_groups` groups of `group_size` episodes, whole ones unless `n_steps` says otherwise. All
    members of a group are reset to the same seed and differ only in the actions they draw, so that what one earns
    more than its peers is due to its actions. See Shao et al. 2024 (arXiv 2402.03300), and `baselines` for what is
    compared with what.

    Args:
        policy: "MlpPolicy", "CnnPolicy" for images, "MultiInputPolicy" for a Dict or Tuple with images in it,
            "BoardPolicy" for boards that may be turned and mirrored; "MlpGruPolicy", "CnnGruPolicy",
            "MultiInputGruPolicy", with a memory, where an observation does not tell all; or a class or an object of
            your own, see `policy_model.PolicyModel`.
        env: an id, an EnvSpec, a function that makes an environment, an environment with a spec, or a vector
            environment that accepts a list of seeds. None only to use a loaded agent without training it.
        learning_rate: a number, "lin_X" (X to 0 in a straight line), or a function of the progress remaining.
        n_groups: groups P an iteration. More: steadier gradients, fewer updates for the same steps.
        group_size: members G of a group. More: a better baseline, fewer different starts.
        n_steps: cut episodes after so many steps of each environment, update, and go on with them: many small
            updates where episodes are long whatever one does, as those of runners are. None: whole episodes. Only for
            baselines that estimate the value of a state ("soft_groups"); then `n_groups * group_size` environments
            play all the time.
        batch_size: steps in a minibatch; None for the whole iteration at once. A policy with a memory learns from
            whole trajectories, of about so many steps in all.
        n_epochs: passes over an iteration's steps.
        gamma: discount in [0, 1].
        gae_lambda: λ of the λ-returns, for baselines that estimate the value of a state ("soft_groups").
        value_window: with `n_steps`, iterations that such an estimate is made of, the latest and those before it: its
            pieces need not show all phases of an episode. Whole episodes do, and are judged by the latest alone.
        baseline: what a step is compared with: "soft_groups" (all steps of the other episodes, by how alike the
            states are), "live_peers" (members of the group that still live at the same step), "shrunk" (the same,
            drawn toward the batch where they say little), "batch" (all episodes at that step), or "bins" (the other
            episodes that came through the same bin of states and times). Or what an episode is: "outcome" (the
            group's mean return), "leave_one_out" (the mean of the others' returns), "scalar" (the mean of all others
            of the iteration), "anchor_states" ("outcome", and for each step those of the group that saw exactly the
            same), "vine" (states in between, by continuations from there: `vine.Vine`). Or all steps: "every_step",
            "process", "time_index", see `standardised`.
        vine_states: states an iteration that are continued from, for the baseline "vine".
        vine_continuations: how often each; more: better values, more steps that are not learned from.
        scale_rewards: divide advantages by their deviation over the steps of the "group" or the "batch", or "none";
            or by one over episodes, "group_episodes", "batch_episodes", "batch_returns", see `advantages.scale`.
        aggregation: how steps weigh in the loss: "step" (alike), "trajectory" (each episode alike), "group" (each
            group alike), "constant" (their sum divided by the number of episodes times the longest they may be).
        clip_range: how far the probability ratio may move; number or schedule.
        clip_range_high: the upper side, if it differs (DAPO's clip-higher).
        ent_coef: weight of the exact entropy bonus.
        max_grad_norm: gradients are scaled down to this norm.
        n_envs: episodes in play at once; None for all of an iteration.
        n_workers: processes that play; 1 for this one alone. The result does not depend on it. It pays where a step
            of the environment takes much longer than a small network; a script that uses it needs its
            `if __name__ == "__main__":`.
        collector: who the workers are: "processes" of this machine, actors on "ray", or a function that makes a
            `workers.Crew`, as `ray_actors.RayActors(address)`.
        max_resamples: how many times an iteration may play new groups in place of those without spread.
        max_episode_steps: cut episodes here, if earlier than the environment does; where it has no limit,
            None means 10,000.
        normalize_observations: keep a running normalisation inside the policy.
        target_kl: stop an update at 1.5 times this approximate KL divergence.
        variant: a member of the family by name, such as "dr_grpo" or "dapo": the arguments that `grpo_gym.variant`
            shows, where they are not given.
        objective: "clipped" (PPO's), "sequence" (the same of the whole episode's ratio, as in GSPO), or
            "clipped_weights" (no step loses its gradient, as in CISPO).
        ratio_cap: cut the probability ratio of bad actions here (dual clip); None for no cap.
        min_group_std: treat groups whose returns deviate by less as tied.
        truncated_episodes: those that a time limit ended: "keep", "drop" them from the loss, or "drop_bad", only those
            with a negative advantage. Their returns are compared all the same.
        kl_coef: weight of the KL divergence from a reference policy; 0: there is none.
        kl_estimator: "k1", "k2", "k3", or "exact"; see `references.loss_to_reference`.
        kl_in: where it counts: in the "loss", or in the "reward" of each step (use "k1", see `references`).
        reference: "initial", the policy as it is when training starts (of a loaded agent: as loaded), or the file
            of another agent.
        reference_update: None: the reference stays. From 1 on: it becomes the policy every so many iterations. Below
            1: it moves so large a share of the way to the policy after each iteration.
        reference_kl: double or halve `kl_coef` to keep the divergence near this; None leaves it.
        reward_functions: `[(name, function, weight), ...]`: rewards computed from finished episodes, in place of the
            environment's; see `rewards`. Each part is logged as `reward/<name>`.
        adapter_rank: of a loaded agent: leave its network as it is, and train matrices of this rank beside its linear
            layers; the reference "initial" is then the network without them. See `adapters`.
        stats_window_size: episodes over which `rollout/ep_rew_mean` and its like are averaged.
        tensorboard_log: folder for TensorBoard runs; None for none.
        policy_kwargs: further arguments of the policy, and `optimizer_class`, `optimizer_kwargs`.
        verbose: 0 quiet, 1 a table each `log_interval` iterations.
        seed: makes a run repeatable; None for a different one each time.
        device: "auto", "cpu", "cuda".
        _init_setup_model: build the network at once.

    Raises:
        ValueError, TypeError: at construction, for what cannot work; the message says how to mend it.
    """

    def __new__(cls, policy: Any = None, env: Any = None, *rest: Any, **named: Any) -> GRPO:
        """Make the subclass that such an environment needs, as `pathlib.Path` makes a `PosixPath`."""
        kinds = GRPO.__subclasses__() if cls is GRPO else []
        return super().__new__(next((kind for kind in kinds if kind.plays(env)), cls))

    @classmethod
    def plays(cls, env: Any) -> bool:
        """Tell whether this environment is one that `GRPO(policy, env)` leaves to this subclass."""
        return False

    @takes_variant
    def __init__(
        self,
        policy: str | type[PolicyModel] | PolicyModel,
        env: EnvLike | None,
        learning_rate: float | str | Schedule = 5e-4,
        n_groups: int = 4,
        group_size: int = 4,
        n_steps: int | None = None,
        batch_size: int | None = 128,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        value_window: int = 16,
        baseline: str = "soft_groups",
        vine_states: int = 16,
        vine_continuations: int = 4,
        scale_rewards: str = "batch",
        aggregation: str = "step",
        clip_range: float | str | Schedule = 0.2,
        clip_range_high: float | str | Schedule | None = None,
        ent_coef: float = 0.0,
        max_grad_norm: float = 0.5,
        n_envs: int | None = None,
        n_workers: int = 1,
        collector: str | MakeCrew = "processes",
        max_resamples: int = 0,
        max_episode_steps: int | None = None,
        normalize_observations: bool = True,
        target_kl: float | None = None,
        variant: str | None = None,
        objective: str = "clipped",
        ratio_cap: float | None = None,
        min_group_std: float = 0.0,
        truncated_episodes: str = "keep",
        kl_coef: float = 0.0,
        kl_estimator: str = "k3",
        kl_in: str = "loss",
        reference: str | PathLike[str] = "initial",
        reference_update: float | None = None,
        reference_kl: float | None = None,
        reward_functions: Sequence[RewardPart] | None = None,
        adapter_rank: int | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | PathLike[str] | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: str | torch.device = "auto",
        _init_setup_model: bool = True,
        **unknown: Any,
    ):
        arguments.refuse_unknown(unknown, ARGUMENTS)
        self.policy_class = find_policy(policy)
        self.learning_rate, self.clip_range, self.clip_range_high = learning_rate, clip_range, clip_range_high
        self.n_groups, self.group_size, self.n_steps = n_groups, group_size, n_steps
        self.batch_size, self.n_epochs = batch_size, n_epochs
        self.gamma, self.gae_lambda, self.value_window = gamma, gae_lambda, value_window
        self.ent_coef, self.max_grad_norm, self.target_kl = ent_coef, max_grad_norm, target_kl
        self.baseline, self.scale_rewards, self.aggregation = baseline, scale_rewards, aggregation
        self.vine_states, self.vine_continuations = vine_states, vine_continuations
        self.max_resamples, self.max_episode_steps = max_resamples, max_episode_steps
        self.variant, self.objective, self.ratio_cap = variant, objective, ratio_cap
        self.min_group_std, self.truncated_episodes = min_group_std, truncated_episodes
        self.kl_coef, self.kl_estimator, self.kl_in = kl_coef, kl_estimator, kl_in
        self.reference, self.reference_update, self.reference_kl = reference, reference_update, reference_kl
        self.reward_functions, self.adapter_rank = reward_functions, adapter_rank
        self.normalize_observations = normalize_observations
        self.stats_window_size, self.tensorboard_log = stats_window_size, tensorboard_log
        self.policy_kwargs, self.verbose, self.seed = policy_kwargs or {}, verbose, seed
        self.device = arguments.device(device)
        arguments.check({**vars(self), "n_envs": n_envs, "n_workers": n_workers})
        self.lr_schedule = as_schedule(learning_rate, "learning_rate")
        self._clip_low = as_schedule(clip_range, "clip_range")
        high = clip_range if clip_range_high is None else clip_range_high
        self._clip_high = as_schedule(high, "clip_range_high")
        self._baseline = BASELINES[baseline]
        self._earlier: deque[Visited] = deque(maxlen=0 if n_steps is None else value_window - 1)
        self.num_timesteps = self._total_timesteps = self._n_updates = self._iterations = 0
        self._current_progress_remaining = 1.0
        self.start_time = 0.0
        self.ep_info_buffer: deque[dict[str, float]] = deque(maxlen=stats_window_size)
        self.ep_success_buffer: deque[float] = deque(maxlen=stats_window_size)
        self._logger: Logger | None = None
        self._custom_logger = self._warned_of_starts = False
        self._latest_file = ""
        self._face: VecFace | None = None
        self._reference: Reference | None = None
        self._reference_state: dict[str, torch.Tensor] = {}
        self._shaping: dict[str, list[float]] = {}
        self.n_workers, self.collector = n_workers, collector
        n_envs = n_envs or n_groups * group_size
        self.sampler = Sampler(n_groups, group_size, n_steps, n_envs, n_workers, collector, max_episode_steps)
        if env is not None:
            slots = self.sampler.make_slots(env)
            self._use(slots, env)
            self.observation_space, self.action_space = slots.observation_space, slots.action_space
        if verbose >= 1:
            print(f"Using {self.device} device")
        if _init_setup_model and env is not None:
            self._setup_model()

    def _setup_model(self) -> None:
        """Make the network, its optimiser and the random streams."""
        self.set_random_seed(self.seed)
        self._make_policy()

    def _make_policy(self) -> None:
        kwargs = dict(self.policy_kwargs)
        optimizer = {name: kwargs.pop(name) for name in ("optimizer_class", "optimizer_kwargs") if name in kwargs}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._weight_seed)
            policy = make_policy(
                self.policy_class, self.observation_space, self.action_space, self.normalize_observations, kwargs
            )
            if self.adapter_rank is not None:
                add_adapters(policy, self.adapter_rank)
        self.policy: PolicyModel = policy.to(self.device)
        self._prediction = Prediction(self.observation_space, self.action_space)
        self.optimizer = make_optimizer(self.policy, self.lr_schedule(1.0), **optimizer)

    def set_random_seed(self, seed: int | None = None) -> None:
        """Start the agent's random streams anew: plans, minibatch order and stochastic `predict` each have one.

        The global generators of Python, NumPy and torch are left alone.

        Args:
            seed: None for a seed from the operating system.
        """
        if seed is not None:
            arguments.whole("seed", seed, 0)
        streams = np.random.SeedSequence(seed).spawn(4)
        self._plan_rng, self._predict_rng = (np.random.default_rng(stream) for stream in streams[:2])
        self._update_generator = torch.Generator().manual_seed(int(streams[2].generate_state(1)[0]))
        self._weight_seed = int(streams[3].generate_state(1)[0])

    def learn(
        self,
        total_timesteps: float,
        callback: Any = None,
        log_interval: int = 1,
        tb_log_name: str = "GRPO",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> GRPO:
        """Train until at least `total_timesteps` environment steps were taken, every one counted.

        Args:
            total_timesteps: a lower bound: the iteration under way is finished.
            callback: None, a function `(locals, globals) -> bool`, a callback, or a list of them.
            log_interval: iterations between two dumps of the log; each is made after the update it reports.
            tb_log_name: name of the TensorBoard run.
            reset_num_timesteps: False to continue: `total_timesteps` more, in the same TensorBoard run.
            progress_bar: show one (needs the extra "progress").

        Returns:
            This agent.
        """
        arguments.whole("log_interval", log_interval, 1)
        hooks = self._start_learning(total_timesteps, callback, tb_log_name, reset_num_timesteps, progress_bar)
        assert self.env is not None
        ties = TieWatch(self.env.name)
        try:
            hooks.on_training_start({"self": self, "total_timesteps": self._total_timesteps}, globals())
            with threadpool_limits(1, "blas"):  # two threads of NumPy's wait for each other, and round differently
                while self.num_timesteps < self._total_timesteps:
                    settings = self._settings()
                    started = time.perf_counter()
                    iteration = self._collect(hooks)
                    if iteration is None:
                        break
                    collected = time.perf_counter()
                    metrics = self._improve(iteration, settings)
                    ties.see(metrics.get("n_updates", 0) > 0)
                    self._iterations += 1
                    self._n_updates += int(metrics.pop("n_updates", 0))
                    comparing = self._seconds_comparing
                    seconds = (collected - started - comparing, comparing, time.perf_counter() - collected)
                    self._report(iteration, metrics, settings, seconds, dump=self._iterations % log_interval == 0)
            ties.conclude()
        except Exception as error:
            if self._latest_file:
                explain(error, f"the last checkpoint of this agent is {self._latest_file}")
            raise
        finally:
            hooks.on_training_end()
            if not self._custom_logger:
                self.logger.close()
        return self

    def _improve(self, iteration: tuple[Rollout, Compared, float], settings: UpdateSettings) -> dict[str, float]:
        """Change the policy by what an iteration taught, and return the update's metrics; none if that is nothing."""
        rollout, compared, _ = iteration
        metrics: dict[str, float] = {}
        batch = self._make_batch(rollout, compared)
        if batch is not None:
            metrics = update(self.policy, self.optimizer, batch, settings, self._update_generator)
        if self.adapter_rank is None:
            self.policy.observe(rollout.observations)
        if self._reference is not None:
            kl = self._shaping.get("train/reference_kl", [metrics.get("reference_kl", math.nan)])[-1]
            self._reference.follow(self.policy, self._iterations + 1, kl)
        return metrics

    def _start_learning(
        self, total_timesteps: float, callback: Any, tb_log_name: str, reset: bool, progress_bar: bool
    ) -> BaseCallback:
        more = arguments.total_timesteps(total_timesteps)
        if self.env is None:
            raise ValueError("this agent has no environment to learn in: call set_env(env) first")
        if reset:
            self.num_timesteps = self._iterations = 0
            self.ep_info_buffer.clear()
            self.ep_success_buffer.clear()
        self._total_timesteps = self.num_timesteps + more
        self.start_time, self._steps_at_start = time.perf_counter(), self.num_timesteps
        self._update_progress()
        if not self._custom_logger:
            self._logger = open_run(self.tensorboard_log, tb_log_name, new=reset, verbose=self.verbose)
        hooks = as_callback(callback)
        if progress_bar:
            hooks = CallbackList([hooks, ProgressBarCallback()])
        hooks.init_callback(self)
        if self.kl_coef > 0 and self._reference is None:
            self._reference = self._make_reference()
        self.sampler.resume()
        return hooks

    def _make_reference(self) -> Reference:
        """Make the reference policy: of this one as it is now, of another's file, or as a checkpoint had it."""
        initial, update = self.reference == "initial", self.reference_update
        policy = self.policy if initial else GRPO.load(self.reference, device=self.device).policy
        shares_base = self.adapter_rank is not None and initial and update is None
        require_whole_episodes(policy, self.n_steps)
        reference = Reference(policy, self.kl_coef, self.kl_estimator, update, self.reference_kl, shares_base)
        reference.load_state(self._reference_state)
        reference.check_fits(self.policy)
        return reference

    def _update_progress(self) -> None:
        self._current_progress_remaining = max(0.0, 1.0 - self.num_timesteps / self._total_timesteps)

    def _settings(self) -> UpdateSettings:
        """Resolve the schedules as of the iteration's start: from here on there are plain numbers."""
        self._update_progress()
        progress = self._current_progress_remaining
        return UpdateSettings(
            learning_rate=self.lr_schedule(progress),
            n_epochs=self.n_epochs,
            batch_size=self.batch_size,
            clip_low=self._clip_low(progress),
            clip_high=self._clip_high(progress),
            ent_coef=self.ent_coef,
            max_grad_norm=self.max_grad_norm,
            target_kl=self.target_kl,
            objective=self.objective,
            ratio_cap=self.ratio_cap,
            kl_coef=0.0 if self._reference is None else self._reference.kl_coef,
            kl_estimator=self.kl_estimator,
        )

    def _compare(self, rollout: Rollout) -> Compared:
        started = time.perf_counter()
        comparison = Comparison(self.gamma, self.gae_lambda, self.policy.flatten, self._earlier)
        compared = self._baseline(rollout, comparison)
        compared = silence_narrow_groups(compared, self.group_size, self.min_group_std)
        self._seconds_comparing += time.perf_counter() - started
        return compared

    def _make_batch(self, rollout: Rollout, compared: Compared) -> Batch | None:
        """Flatten what teaches something; None if nothing does."""
        teaching = select_teaching(rollout, compared, self.scale_rewards, self.truncated_episodes)
        if teaching is None:
            return None
        horizon = self.max_episode_steps or (self.env and self.env.time_limit) or DEFAULT_HORIZON
        batch = make_batch(self.policy, *teaching, self.aggregation, horizon, self.objective == "sequence")
        if self._reference is None or self.kl_in == "reward":
            return batch
        return replace(batch, reference=self._reference.look_at(teaching[0]))

    def _collect(self, hooks: BaseCallback) -> tuple[Rollout, Compared, float] | None:
        """Play an iteration: its trajectories, what the baseline makes of them, the share of groups that tied.

        None if a callback ended it.
        """
        layouts = Layout(self.observation_space), Layout(self.action_space, "action")
        listened_to = type(hooks) is not CallbackList or len(hooks.callbacks) > 0  # a subclass may listen itself

        def on_step(played: Played) -> bool:
            self.num_timesteps += played.step.n_steps
            for row in played.ended.nonzero()[0].tolist():
                info = played.infos[row]
                self.ep_info_buffer.append(info["episode"])
                if "is_success" in info:
                    self.ep_success_buffer.append(float(info["is_success"]))
            if not listened_to:
                return True
            hooks.update_locals(played.as_locals(*layouts))
            return hooks.on_step()

        policy = self.policy if self.adapter_rank is None else merge_adapters(self.policy)
        actor = policy.actor()

        def play(n_groups: int) -> Rollout | None:
            rollout = self.sampler.play(actor, n_groups, self._plan_rng, on_step)
            penalty = self._reference if self.kl_in == "reward" else None
            return rollout and shape_rewards(rollout, policy, self.reward_functions, penalty, self._shaping)

        assert self.env is not None
        hooks.on_rollout_start()
        self._seconds_comparing = 0.0
        self._shaping = {}
        iteration = collect_groups(play, self.n_groups, self._compare, self.max_resamples)
        if iteration is not None and self.baseline == "vine":
            rollout, compared, tied = iteration
            found = self._vine.compare(rollout, compared, self.gamma, actor, self._plan_rng, on_step)
            iteration = None if found is None else (rollout, found, tied)
        if iteration is not None:
            if self._earlier.maxlen:
                self._earlier.append(Visited.of(iteration[0], self.policy.flatten))
            hooks.on_rollout_end()
            if not self._warned_of_starts:
                self._warned_of_starts = warn_of_unequal_starts(iteration[0], self.env.name)
            if self._iterations == 0 and self.n_steps is None and self.baseline in BOOTSTRAPPING:
                warn_of_rare_updates(iteration[0], self.env.name)
        return iteration

    def _report(
        self,
        iteration: tuple[Rollout, Compared, float],
        metrics: dict[str, float],
        settings: UpdateSettings,
        seconds: tuple[float, float, float],
        dump: bool,
    ) -> None:
        """Record what docs/log_keys.md lists; nothing is dumped before the update that it describes."""
        elapsed = time.perf_counter() - self.start_time
        counts = {
            "time/iterations": self._iterations,
            "time/time_elapsed": elapsed,
            "time/total_timesteps": self.num_timesteps,
            "train/n_updates": self._n_updates,
        }
        fps = int((self.num_timesteps - self._steps_at_start) / elapsed)
        stats = {
            **self._stats(iteration, metrics, settings),
            **episode_stats(self.ep_info_buffer, self.ep_success_buffer),
            **dict(zip(("time/collect", "time/baseline", "time/update"), seconds, strict=True)),
        }
        advantages = self._advantages(iteration) if dump else None
        record_iteration(self.logger, {**stats, "time/fps": fps}, counts, advantages)
        if dump:
            self.dump_logs()

    def _stats(
        self, iteration: tuple[Rollout, Compared, float], metrics: dict[str, float], settings: UpdateSettings
    ) -> dict[str, float]:
        log_std = getattr(getattr(self.policy, "head", None), "log_std", None)
        stats = {**rollout_stats(*iteration), **update_stats(metrics, settings, log_std)}
        return {**stats, **shaping_stats(self._shaping)}

    def _advantages(self, iteration: tuple[Rollout, Compared, float]) -> torch.Tensor:
        rollout, compared, _ = iteration
        return compared.advantages[rollout.mask]

    def dump_logs(self) -> None:
        """Write what was recorded since the last dump."""
        self.logger.dump(step=self.num_timesteps)

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: Any = None,
    ) -> tuple[Any, Any]:
        """Choose actions for one observation or a batch of them.

        Args:
            observation: one observation, or a batch `[n, ...]`; a dict or tuple of such for Dict and Tuple spaces.
            state: what the last call for these episodes returned; None at their start. Policies without a memory
                hand it back unchanged.
            episode_start: True where the observation is the first of its episode, `[n]`: there the state is forgotten.
            deterministic: the most probable action instead of a drawn one.
            action_masks: legal actions, `[n_actions]` or `[n, n_actions]`; see `action_code.ActionCode` for actions
                of several parts.

        Returns:
            `(actions, state)`: one action for one observation; Box actions within their bounds. Actions of Dict and
            Tuple spaces are dicts and tuples, for a batch of arrays `[n, ...]`. The state is for the next call; of
            policies with a memory `[n, memory_size]`, where n = 1 for one observation.
        """
        memory = Recollection(self.policy, state, episode_start) if remembers(self.policy) else None
        actor = memory or self.policy
        actions = self._prediction.predict(actor, observation, deterministic, action_masks, self._predict_rng)
        return actions, state if memory is None else memory.state

    @property
    def logger(self) -> Logger:
        """The logger in use; before the first `learn`, one that writes nowhere."""
        if self._logger is None:
            self._logger = configure(None, [])
        return self._logger

    def set_logger(self, logger: Logger) -> None:
        """Use this logger from now on, whatever `tensorboard_log` and `verbose` say. Its owner closes it."""
        self._logger, self._custom_logger = logger, True

    @property
    def env(self) -> Slots | None:
        """The training environment, or None."""
        return self.sampler.env

    @property
    def n_envs(self) -> int:
        """Episodes in play at once."""
        return self.sampler.n_envs

    def get_env(self) -> VecFace | None:
        """Return the training environment as stable-baselines3's scripts know it, or None."""
        if self._face is None or self._face.slots is not self.env:
            self._face = None if self.env is None else VecFace(self.env, self.sampler.set_aside)
        return self._face

    def get_vec_normalize_env(self) -> None:
        """Return None: normalisation is part of the policy. It is here for callbacks that ask."""

    def set_env(self, env: EnvLike, force_reset: bool = True) -> None:
        """Train in another environment with the same spaces.

        Raises:
            ValueError: if its spaces differ; both are named.
        """
        slots = self.sampler.make_slots(env)
        if not hasattr(self, "policy"):  # made without an environment: this one's spaces are the agent's
            self.observation_space, self.action_space = slots.observation_space, slots.action_space
            self._setup_model()
        check_spaces(slots, self.observation_space, self.action_space, "the agent was made for")
        if self.env is not None:
            self.env.close()
            self._earlier.clear()  # of a loaded agent they are of this one
        self._use(slots, env)
        self._warned_of_starts = False

    def _use(self, slots: Slots, env: EnvLike) -> None:
        if self.baseline == "vine":
            self._vine = make_vine(env, self.vine_states, self.vine_continuations, self.n_envs, self.max_episode_steps)
        self.sampler.use(slots, env)

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        """Return the state dicts of "policy" and "policy.optimizer"."""
        return {"policy": self.policy.state_dict(), "policy.optimizer": self.optimizer.state_dict()}

    def set_parameters(
        self, load_path_or_dict: Any, exact_match: bool = True, device: str | torch.device = "auto"
    ) -> None:
        """Load weights and optimiser state, in place.

        Args:
            load_path_or_dict: what `get_parameters` returns, or a file that `save` wrote.
            exact_match: require both entries, and the same tensors.
            device: where a file's tensors are read to.

        Raises:
            ValueError: if names or shapes do not fit.
        """
        given = load_path_or_dict
        if not isinstance(given, dict):
            read = read_checkpoint(given, device=arguments.device(device))
            given = {"policy": read.policy, "policy.optimizer": read.optimizer}
        set_parameters(self.policy, self.optimizer, given, exact_match)

    def save(
        self,
        path: str | PathLike[str] | IO[bytes],
        exclude: Sequence[str] | None = None,
        include: Sequence[str] | None = None,
    ) -> None:
        """Write everything that `load` needs to go on exactly where this agent stands.

        The file is replaced in one piece: a crash while saving leaves the old one whole.

        Args:
            path: ".zip" is appended if missing; parent folders are made. Or a binary file object.
            exclude: constructor arguments to leave out; `load` must then be given them, or uses the defaults.
            include: accepted for stable-baselines3's sake; nothing is left out by default.
        """
        write_checkpoint(path, checkpoint_of(self, ARGUMENTS, exclude or ()))
        if isinstance(path, str | PathLike):
            self._latest_file = f"{checkpoint_path(path)}, of {self.num_timesteps} steps"

    def export(self, path: str | PathLike[str], action_masks: bool = False) -> None:
        """Write the policy for deployment: torch alone runs it, and it acts as `predict(deterministic=True)` does.

        `torch.export.load(path).module()` takes a batch of observations as the environment gives them, a tensor
        `[n, ...]`, or for Dict and Tuple spaces a dict (keys in the order of the space) or tuple of such, and returns
        the environment's actions, of the same kind. Normalisation, clipping and shifts are inside. One with a memory
        takes `(observations, state, episode_start)` and returns `(actions, state)`: state `[n, memory_size]`, zeros at
        first, is forgotten where episode_start, bool `[n]`, is True.

        Args:
            path: by custom ends in ".pt2". The file is replaced in one piece.
            action_masks: it takes legal actions too, bool `[n, mask_size]`, as its last argument; see
                `action_code.ActionCode`.

        Raises:
            ValueError: if the policy cannot be exported: it is of a kind of its own, or torch.export cannot follow it.
        """
        replace_file(Path(path), exported(self.policy, action_masks))

    @classmethod
    def load(
        cls,
        path: str | PathLike[str] | IO[bytes],
        env: EnvLike | None = None,
        device: str | torch.device = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> GRPO:
        """Make an agent from a file that `save` wrote. No code in the file is ever run.

        Args:
            path: the file.
            env: to train in; None to predict only, or to `set_env` later.
            device: where the network shall be.
            custom_objects: arguments that could not be written into the file (functions, your own classes).
            print_system_info: print the versions the file was written with.
            force_reset: accepted for stable-baselines3's sake; every iteration resets its environments.
            **kwargs: constructor arguments that replace the stored ones.

        Raises:
            ValueError: if the file is damaged, its spaces are not the environment's, or an argument that
                could not be stored is not given; the message says which.
        """
        checkpoint = read_checkpoint(path, custom_objects=custom_objects)
        if print_system_info:
            print(checkpoint.system_info)
        given = {**(custom_objects or {}), **with_preset(kwargs)}
        for kind in cls.__subclasses__():
            if kind.__name__ == checkpoint.data.get("class"):
                return kind.load(path, env, device, custom_objects, False, force_reset, **kwargs)
        stored = stored_arguments(checkpoint, given, path)
        agent = cls(env=env, device=device, _init_setup_model=False, **stored)
        restore(agent, checkpoint, path, given)
        return agent

    def merge_adapters(self) -> None:
        """Add what the adapters learned into the network, which then is of its old size, with an optimiser anew."""
        merged = merge_adapters(self.policy).state_dict()
        self.adapter_rank, self._reference, self._reference_state = None, None, {}
        self._make_policy()
        self.policy.load_state_dict(merged)


ARGUMENTS = tuple(name for name in inspect.signature(GRPO.__init__).parameters if name not in ("self", "unknown"))
"""The constructor's arguments, each an attribute of the same name."""
