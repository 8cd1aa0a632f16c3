"""Theorems of Lean 4, proved by the model and checked by Lean.

statement.py reads a theorem, proof.py takes a proof out of a completion and refuses what is none, program.py makes the
program that Lean is given and reads its verdict, project.py and server.py run Lean, keeper.py ends it, task.py is the
task. stub.py plays
a server where there is no Lean.
"""
