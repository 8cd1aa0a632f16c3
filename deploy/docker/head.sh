#!/bin/sh
# A container that is the Ray head and makes one run: hub and learner here, actors on the nodes that join.
#
#   rapid-head RECIPE [options of rapid train]
#
# RAPID_RUN         name of the run; after a restart it goes on from its newest checkpoint
# RAPID_RUNS        folder of the runs, /runs unless set
# RAPID_ACTOR_CPUS  CPUs that each actor asks for, which are the threads of a CPU engine
set -eu

runs=${RAPID_RUNS:-/runs}
run=${RAPID_RUN:-run}
recipe=${1:?"rapid-head: expected a recipe, such as recipes/quickstart.toml"}
shift
address=$(hostname -i | cut -d' ' -f1)

# One logical CPU more than there are, for the hub beside a learner that takes all.
ray start --head --port=6379 --node-ip-address="$address" --dashboard-host=127.0.0.1 \
    --num-cpus=$(($(nproc) + 1)) --resources='{"learner": 1}' --object-store-memory=100000000 --disable-usage-stats

# As many actors as the nodes that join have room for; what the caller says comes last and counts.
set -- --run "$run" --set "run.directory=$runs" --set telemetry.port=9300 \
    --set learner.resource=learner --set actors.resource=actor --set "actors.cpus=${RAPID_ACTOR_CPUS:-1}" \
    --set actors.scaling=cluster --set actors.max=64 "$@"
if [ -n "$(find "$runs/$run/checkpoints" -maxdepth 1 -name 'step-*' 2>/dev/null)" ]; then
    set -- "$@" --resume
elif [ -e "$runs/$run" ]; then
    # It ended before its first checkpoint, so that there is nothing to go on from.
    mv "$runs/$run" "$runs/$run.$(date +%s)"
fi
export RAY_ADDRESS="$address:6379"
exec rapid train "$recipe" "$@"
