"""Small games with exact oracles, for Gymnasium; importing this package registers them.

  id                        single environment         native vector environment
  grpo/Battleship-v0        `BattleshipEnv`            `BattleshipVectorEnv`
  grpo/Bandit-v0            `BanditEnv`                `BanditVectorEnv`
  grpo/DynamicBandit-v0     `DynamicBanditEnv`         `DynamicBanditVectorEnv`
  grpo/Countdown-v0         `CountdownEnv`             `CountdownVectorEnv`

`gym.make("grpo_envs:grpo/Battleship-v0")` imports and makes in one go. Reference players that say what a
score is worth are in `grpo_envs.players`; `python -m grpo_envs.players` prints their table.

`grpo_envs.duel` is Battleship for two, `grpo/BattleshipDuel-v0`; its matches are in `grpo_envs.duel_players`. These
two need PettingZoo, and are imported by themselves.
"""

from __future__ import annotations

from gymnasium.envs.registration import register

from grpo_envs.bandits import BanditEnv, DynamicBanditEnv
from grpo_envs.bandits_vector import BanditVectorEnv, DynamicBanditVectorEnv
from grpo_envs.battleship import BattleshipEnv
from grpo_envs.battleship_vector import BattleshipVectorEnv
from grpo_envs.countdown import CountdownEnv
from grpo_envs.countdown_vector import CountdownVectorEnv

__all__ = [
    "BanditEnv",
    "BanditVectorEnv",
    "BattleshipEnv",
    "BattleshipVectorEnv",
    "CountdownEnv",
    "CountdownVectorEnv",
    "DynamicBanditEnv",
    "DynamicBanditVectorEnv",
]

# max_episode_steps stays unset: every game ends by its own rules, and Gymnasium would wrap only the single ones
register(
    id="grpo/Battleship-v0",
    entry_point="grpo_envs.battleship:BattleshipEnv",
    vector_entry_point="grpo_envs.battleship_vector:BattleshipVectorEnv",
)
register(
    id="grpo/Bandit-v0",
    entry_point="grpo_envs.bandits:BanditEnv",
    vector_entry_point="grpo_envs.bandits_vector:BanditVectorEnv",
)
register(
    id="grpo/DynamicBandit-v0",
    entry_point="grpo_envs.bandits:DynamicBanditEnv",
    vector_entry_point="grpo_envs.bandits_vector:DynamicBanditVectorEnv",
)
register(
    id="grpo/Countdown-v0",
    entry_point="grpo_envs.countdown:CountdownEnv",
    vector_entry_point="grpo_envs.countdown_vector:CountdownVectorEnv",
)
