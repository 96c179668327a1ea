"""Critic-free GRPO for Gymnasium environments.

from grpo_gym import GRPO
agent = GRPO("MlpPolicy", "CartPole-v1", seed=0).learn(50_000)
"""

from grpo_gym.agent import GRPO
from grpo_gym.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnRewardThreshold,
)
from grpo_gym.doctor import check_group_env
from grpo_gym.evaluation import evaluate_policy
from grpo_gym.group_report import GroupReport
from grpo_gym.marl_agent import MultiGRPO
from grpo_gym.progress import ProgressBarCallback
from grpo_gym.recipes import recipe
from grpo_gym.rewards import Episode, RewardModel, environment_reward
from grpo_gym.schedules import LinearSchedule
from grpo_gym.variants import variant

__version__ = "0.1.0"

__all__ = [
    "GRPO",
    "BaseCallback",
    "CallbackList",
    "CheckpointCallback",
    "Episode",
    "EvalCallback",
    "GroupReport",
    "LinearSchedule",
    "MultiGRPO",
    "ProgressBarCallback",
    "RewardModel",
    "StopTrainingOnRewardThreshold",
    "check_group_env",
    "environment_reward",
    "evaluate_policy",
    "recipe",
    "variant",
]
