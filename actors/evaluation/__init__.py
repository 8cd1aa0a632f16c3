"""Evaluation: the held-out prompts asked of an engine, judged, and summed up with intervals. See docs/evaluation.md.

measure     task, engine, rewards ──► outcomes, one for each prompt
summary     outcomes ──► the map that eval.jsonl, metrics.jsonl and the terminal show
evaluator   the process that does this while a run goes on
"""
