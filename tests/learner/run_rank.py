"""One rank of the whole learner, for test_loop.py.

run_rank.py SETTINGS_JSON RANK NUM_RANKS PORT
"""

from __future__ import annotations

import json
import sys
import threading

from learner.loop import run_learner
from learner.settings import LearnerSettings


def main() -> None:
    values = json.loads(sys.argv[1])
    rank, num_ranks, port = (int(argument) for argument in sys.argv[2:5])
    values |= {"rank": rank, "world_size": num_ranks, "master_port": port}
    run_learner(LearnerSettings(**values), threading.Event())


if __name__ == "__main__":
    main()
