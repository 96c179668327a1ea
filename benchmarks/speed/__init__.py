"""The speed benchmark: what our steps cost beside those of others, as ratios of interleaved runs.

    python -m benchmarks.speed --list                      # the cases, and what each measures
    python -m benchmarks.speed --only collect update       # some of them, by name or the name's beginning
    python -m benchmarks.speed                             # all of them: an hour or more, most of it `solve`

A *case* compares *sides*. In each round every side is measured once, one straight after the other, so that a
machine that slows down slows all of them: the claims are ratios of two sides in the same round, never figures.
Every case runs in a process of its own with one thread; what depends on the state of a process (start, imports,
memory) is measured in a new process each time.

To add a case, write a function that makes things ready and returns the function of one round, and give it a
line in `cases.CASES`:

    def mine(sizes: Sizes) -> Round:
        agent, env = ...
        return lambda number: {"grpo": speed(lambda: collect_once(agent), sizes.seconds), "other": speed(...)}

Who does what: `cases` is the table, `case` says what a case is and keeps the clocks, `throughput`, `parallel`, `solve`
and `growth` hold the measures, `fresh` starts processes, `results` is the record and the table made of it.
"""
