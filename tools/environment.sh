#!/bin/sh
# Makes or mends a virtual environment: sh tools/environment.sh FOLDER EXTRA [PYTHON]
# Installs this project into FOLDER with the optional dependencies EXTRA, at the versions of constraints.txt. EXTRA
# may be `lowest`: what users install is then at its lower bound, and the tools of the tests as ever.
set -eu
folder=$1
extra=$2
wanted=${3:-}

is_new_enough='import sys; sys.exit(sys.version_info < (3, 11))'

choose() {
    if [ -n "$wanted" ]; then
        if ! "$wanted" -c "$is_new_enough" 2>/dev/null; then
            echo "PYTHON=$wanted is not a Python 3.11 or newer; name one, or leave PYTHON unset" >&2
            exit 1
        fi
        echo "$wanted"
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c "$is_new_enough" 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "distbp needs Python 3.11 or newer, and none was found as python3, python3.13, python3.12 or" >&2
    echo "python3.11. Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2
    exit 1
}

if ! { [ -z "$wanted" ] && "$folder/bin/python" -c "$is_new_enough; import pip" 2>/dev/null; }; then
    python=$(choose)
    echo "creating $folder with $("$python" --version)" >&2
    rm -rf "$folder"
    if ! "$python" -m venv "$folder"; then
        rm -rf "$folder"
        echo "$python cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2
        exit 1
    fi
fi

# Runs a command and says every few seconds how long it has taken, and the last line of the log: nobody should have
# to wonder whether it still works.
told() {
    (
        began=$(date +%s)
        while sleep 4; do
            echo "  $(($(date +%s) - began)) s: $(grep -v -e '^WARNING' -e '━' "$log" | tail -n 1 | cut -c 1-90)" >&2
        done
    ) &
    teller=$!
    "$@" && code=0 || code=$?
    kill "$teller" 2>/dev/null || true
    wait "$teller" 2>/dev/null || true
    return "$code"
}

log=$folder/install.log
echo "installing into $folder (the first time takes a few minutes; log: $log)" >&2
logged() {
    "$@" >>"$log" 2>&1
}
install() {
    told logged "$folder/bin/python" -m pip install --disable-pip-version-check --no-input "$@"
}
: >"$log"
if [ "$extra" = lowest ]; then
    users=plot,fast,digits,cluster
    lowest=$folder/lowest.txt
    "$folder/bin/python" deploy/requirements.py pyproject.toml --lowest $(echo $users | tr , ' ') >"$lowest"
    tools=$(grep -E '^(pytest|pytest-randomly|pytest-xdist|hypothesis|jsonschema)==' constraints.txt)
    install -r "$lowest" $tools && install --no-deps -e .
else
    install -c constraints.txt -e ".[$extra]"
fi || {
    tail -n 20 "$log" >&2
    echo "the installation failed; the whole log is in $log" >&2
    exit 1
}

# Ray starts a process for every worker: each would compile the sources where nobody has kept the result.
"$folder/bin/python" -m compileall -q distbp services/distbp_service

# So with compiled kernels: the first job of each environment would wait for them.
if [ "$extra" = dev ]; then
    echo "compiling kernels, once (a minute or so)" >&2
    told logged "$folder/bin/python" deploy/warm.py || echo "they will be compiled by the first job" >&2
fi
