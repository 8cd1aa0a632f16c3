"""Tasks of writing Python: MBPP, MBPP+, HumanEval and HumanEval+, judged by running their tests in the sandbox."""
