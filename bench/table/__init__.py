"""The experiment that compares RAPID with its baselines: arms × tasks × seeds, see docs/experiments.md.

plan          what is to be run, read from TOML and checked against the recipes before anything starts
arms          the methods, as named sets of overrides
experiment    a plan with its files: what `python -m bench.rapid_table` asks for
cell          one run of the plan: its name, its files, its commands
session       goes through the runs; stops before one that does not fit the time
execute       trains, evaluates, collects and cleans up one run
state         how far a run has come, so that an interruption costs no more than what was under way
memory        peak memory of a run's processes
timing        wall time split into generate, train, load, wait
collect       the result file of one run
curves        smoothing, equal accuracy, savings and their intervals: pure functions
summary       results -> one row an arm
text, draw    rows -> table and pictures
tune          learning rates, by the same short search for every arm
teach         a tiny llama that is taught a task's format, so that a run takes a minute; lessons are its lessons
puzzles       two generated tasks for such a model
"""
