#!/bin/sh
# A container that is the Ray head and makes one run: hub and learner here, actors on the nodes that join.
#
#   rapid-head RECIPE [options of rapid train]
#
# RAPID_RUN    name of the run; after a restart it goes on from its newest checkpoint
# RAPID_RUNS   folder of the runs, /runs unless set
# RAPID_SLOTS  logical CPUs that this node offers: one for hub and learner, more for ranks or threads
set -eu

runs=${RAPID_RUNS:-/runs}
run=${RAPID_RUN:-run}
recipe=${1:?"rapid-head: expected a recipe, such as recipes/quickstart.toml"}
shift
address=$(hostname -i | cut -d' ' -f1)

ray start --head --port=6379 --node-ip-address="$address" --dashboard-host=127.0.0.1 \
    --num-cpus="${RAPID_SLOTS:-2}" --resources='{"rapid_learner": 1}' --object-store-memory=100000000 \
    --disable-usage-stats

set -- --run "$run" --set "run.directory=$runs" --set telemetry.host=node --set telemetry.port=9300 "$@"
if [ -n "$(find "$runs/$run/checkpoints" -maxdepth 1 -name 'step-*' 2>/dev/null)" ]; then
    set -- "$@" --resume
elif [ -e "$runs/$run" ]; then
    # It ended before its first checkpoint, so that there is nothing to go on from.
    mv "$runs/$run" "$runs/$run.$(date +%s)"
fi
export RAY_ADDRESS="$address:6379"
exec rapid train "$recipe" "$@"
