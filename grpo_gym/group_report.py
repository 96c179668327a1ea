"""What was found out about an environment's groups, what is wrong with it, and which baseline suits it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field

from grpo_gym.sampling import LONG_EPISODE, SEGMENT
from grpo_gym.snapshots import Proof

TOLERANCE = 1.05
"""The plainest baseline is recommended that leaves at most this many times what the best one leaves."""

REASONS = {
    "live_peers": "no comparison tells more than the one with peers from the same start",
    "batch": "all episodes at the same step tell more than the few from the same start",
    "shrunk": "both the same start and the whole batch tell something, and it weighs them",
    "soft_groups": "what is still to be earned depends more on the state than on the start and the step",
}
"""Why a baseline is recommended, the plainest first."""


@dataclass(frozen=True)
class GroupReport:
    """What `doctor.check_group_env` found; `print` it. What could not be tried is None, nan or empty.

    Attributes:
        name: of the environment.
        n_groups: groups of random play, P.
        group_size: members of a group, G.
        max_episode_steps: steps after which the doctor cut an episode.
        gamma: discount of the comparison of baselines.
        has_time_limit: the environment says after how many steps it cuts an episode.
        failure: the exception that ended random play, in words; "" if there was none.
        n_steps: environment steps played in groups and by twins.
        equal_starts: equal seeds give equal first observations.
        equal_transitions: equal actions then give equal observations, rewards and ends, bit for bit; None if
            not even the starts are equal.
        snapshots: the verdict on each way to return to the middle of an episode.
        terminated: share of the episodes that ended by themselves.
        truncated: share that the environment cut.
        cut: share that the doctor cut.
        mean_length: steps an episode.
        return_mean: mean of the returns, not discounted.
        within_std: their standard deviation among members of a group, from the same start.
        between_std: that of the groups' expected returns, from different starts.
        start_share: share of the variance that is due to the start, between² / (between² + within²).
        tied_groups: share of the groups whose members all earned the same: these teach nothing.
        unexplained: mean square of the advantages that a baseline leaves, divided by the variance of the
            returns-to-go of all steps around one constant; above 1 is worse than that constant.
    """

    name: str
    n_groups: int
    group_size: int
    max_episode_steps: int
    gamma: float
    has_time_limit: bool
    failure: str = ""
    n_steps: int = 0
    equal_starts: bool | None = None
    equal_transitions: bool | None = None
    snapshots: tuple[Proof, ...] = ()
    terminated: float = math.nan
    truncated: float = math.nan
    cut: float = math.nan
    mean_length: float = math.nan
    return_mean: float = math.nan
    within_std: float = math.nan
    between_std: float = math.nan
    start_share: float = math.nan
    tied_groups: float = math.nan
    unexplained: Mapping[str, float] = field(default_factory=dict)

    @property
    def recommended_baseline(self) -> str | None:
        """What to pass to `GRPO(baseline=...)`; None if random play failed."""
        return self._recommendation[0]

    @property
    def recommended_n_steps(self) -> int | None:
        """What to pass to `GRPO(n_steps=...)` with soft groups; None unless random play always lasts long."""
        return SEGMENT if self.terminated == 0 and self.mean_length > LONG_EPISODE else None

    @property
    def why(self) -> str:
        """The reason for the recommendation, one sentence."""
        return self._recommendation[1]

    @property
    def _recommendation(self) -> tuple[str | None, str]:
        if self.failure:
            return None, ""
        if self.tied_groups >= 0.5:
            return "soft_groups", (
                f"in {self.tied_groups:.0%} of the groups random play earned all members the same, too little to "
                "measure by; where rewards are rare, soft groups let alike states share what one episode found"
            )
        left = self.unexplained
        allowed = TOLERANCE * min(left.values())
        chosen = next(name for name in REASONS if left.get(name, math.inf) <= allowed)
        rival = min((name for name in left if name != chosen), key=left.__getitem__, default=None)
        versus = f", {rival} {left[rival]:.3f}" if rival else ""
        return chosen, f"{REASONS[chosen]}; it leaves {left[chosen]:.3f} of the variance{versus}"

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong, each with how to mend it; empty for a healthy environment."""
        found = {
            f"random play raised an exception, and training would: {self.failure}": bool(self.failure),
            "reset(seed=s) does not repeat the start, so members of a group begin differently: make the environment "
            "draw its start from self.np_random, after super().reset(seed=seed)": self.equal_starts is False,
            "equal seeds and equal actions do not give equal episodes, so members of a group do not share their luck: "
            "make the environment draw all randomness from self.np_random (not np.random or random), and let reset "
            "forget all of the episode before": self.equal_transitions is False,
            "there is no exact way back to the middle of an episode: replay is one if transitions are equal, also in "
            "an environment that was used before, and deepcopy if all of the state is Python's": bool(self.snapshots)
            and not any(proof.exact for proof in self.snapshots),
            f"{self.cut:.0%} of the episodes did not end within {self.max_episode_steps:,} steps, and there is no time "
            "limit: set GRPO(max_episode_steps=...), or wrap the environment in gymnasium.wrappers.TimeLimit": (
                self.cut > 0 and not self.has_time_limit
            ),
            f"in {self.tied_groups:.0%} of the groups all members earned the same, which teaches nothing: reward "
            "smaller steps toward the goal, take larger groups, or set GRPO(max_resamples=...)": (
                self.tied_groups >= 0.5
            ),
        }
        return tuple(problem for problem, is_so in found.items() if is_so)

    def __str__(self) -> str:
        word = {True: "yes", False: "no", None: "not known"}
        rows = [("equal starts", word[self.equal_starts]), ("equal transitions", word[self.equal_transitions])]
        rows += [("snapshots", f"{p.method}: {'exact' if p.exact else f'no, {p.reason}'}") for p in self.snapshots]
        rows += [("time limit", word[self.has_time_limit])]
        if not self.failure:
            share = f"; the start makes {self.start_share:.0%} of the variance" if self.start_share >= 0 else ""
            left = ", ".join(f"{name} {share:.3f}" for name, share in self.unexplained.items())
            rows += [
                ("ends", f"{self.terminated:.0%} terminated, {self.truncated:.0%} truncated, {self.cut:.0%} cut here "
                 f"after {self.max_episode_steps:,} steps; mean length {self.mean_length:.1f}"),
                ("returns", f"mean {self.return_mean:.4g}; standard deviation {self.within_std:.3g} within groups, "
                 f"{self.between_std:.3g} between{share}"),
                ("variance left", f"{left or 'none to explain'} (gamma {self.gamma:g})"),
                ("recommended", f"baseline={self.recommended_baseline!r}: {self.why}"),
            ]  # fmt: skip
            if self.recommended_n_steps:
                text = f"n_steps={SEGMENT}, with soft groups: no episode ends by itself, and whole ones are a long wait"
                rows += [("recommended", f"{text} for each update")]
        rows += [("PROBLEM", problem) for problem in self.problems]
        title = (
            f"{self.name}: random play, {self.n_groups} groups of {self.group_size} episodes and {self.n_groups} pairs "
            f"of twins, {self.n_steps:,} steps"
        )
        lines = [
            textwrap.fill(
                text, 110, initial_indent=f"  {label:<19}", subsequent_indent=21 * " ", break_on_hyphens=False
            )
            for label, text in rows
        ]
        return "\n".join([title, *lines])
