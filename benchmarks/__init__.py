"""The benchmark suite: train agents under one protocol, write raw results, make tables from them alone.

    python -m benchmarks.run --algorithms ppo --tasks CartPole-v1 --settings zoo     # trains, resumable
    python -m benchmarks.report                                                      # tables and figures

Who does what: `tasks` says what is trained on and for how long, `learners` is the seam an algorithm joins
through, `peers` and `zoo` hold stable-baselines3 with its published settings, `evaluation` scores a policy,
`cell` trains one (algorithm, settings, task, seed), `run` goes through many of them, `records` is the format
of the raw files, `statistics` and `report` read them.
"""
