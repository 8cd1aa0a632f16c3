#!/bin/sh
# A container that is a Ray node for actors. It waits for the head, and ends well when there is none any more.
#
# RAPID_HEAD        host name of the head
# RAPID_ACTOR_CPUS  CPUs that each actor asks for
# RAPID_NODE_CPUS   CPUs that this node offers, if it is to hold more than one actor
# RAPID_WAIT_S      seconds without a head after which the run counts as over
set -eu

head=${RAPID_HEAD:-head}
cpus=${RAPID_NODE_CPUS:-${RAPID_ACTOR_CPUS:-1}}
wait_s=${RAPID_WAIT_S:-600}
address=$(hostname -i | cut -d' ' -f1)

reach() {
    python3 -c 'import socket, sys; socket.create_connection((sys.argv[1], 6379), 5)' "$head" 2>/dev/null
}

deadline=$(($(date +%s) + wait_s))
until reach; do
    if [ "$(date +%s)" -ge "$deadline" ]; then
        echo "rapid-actor: nobody answers at $head:6379 for $wait_s s; the run counts as over" >&2
        exit 0
    fi
    sleep 2
done

exec ray start --address="$head:6379" --node-ip-address="$address" \
    --num-cpus="$cpus" --resources='{"actor": 1}' --object-store-memory=100000000 \
    --disable-usage-stats --block
