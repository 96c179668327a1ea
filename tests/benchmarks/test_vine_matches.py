import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import vine
from benchmarks.vine import MATCHES, RIVALS, measure, table


@pytest.mark.parametrize("env_id", MATCHES)
@pytest.mark.parametrize("rival", ["live_peers", "vine, a state a group"])
def test_every_match_is_played_to_its_budget(env_id: str, rival: str, monkeypatch: pytest.MonkeyPatch) -> None:
    match = MATCHES[env_id]
    monkeypatch.setitem(MATCHES, env_id, vine.Match(300, {**match.arguments, "n_groups": 2}, n_episodes=5))
    record = measure(env_id, rival, 100)
    assert 300 <= record["steps"] < 1_000


def test_it_writes_what_it_measured_and_the_table_has_every_rival(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fake(env_id: str, rival: str, seed: int) -> dict[str, Any]:
        return {"env": env_id, "rival": rival, "seed": seed, "score": seed / 100, "cpu_seconds": 2.0}

    monkeypatch.setattr(vine, "measure", fake)
    output = tmp_path / "out.jsonl"
    vine.main(["--seeds", "100", "200", "--envs", "CartPole-v1", "--output", str(output)])
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(records) == 2 * len(RIVALS)
    assert "| CartPole-v1 | 30,000 | live_peers | 1.500 | 1.000 2.000 | 2.0 |" in table(records)
