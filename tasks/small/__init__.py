"""Tasks for a model of 0.1 billion parameters on two CPU cores: short completions, real checkers, a difficulty dial."""
