# Sourced by deploy/up and deploy/check: `ready_venv EXTRAS` makes .venv in the checkout and fills it, once per change of the pins.
# Everything it says goes to standard error: standard output belongs to the command that follows.

fail() {
    printf '%s\n' "toolledger: $*" >&2
    exit 2
}

find_python() {
    local each
    for each in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11 python; do
        if [ -n "$each" ] && "$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            printf '%s\n' "$each"
            return
        fi
    done
    return 1
}

ready_venv() {
    local extras=$1 python stamp=.venv/.toolledger-installed wanted
    # The path counts too: scripts in a venv know where it stood.
    wanted="$(cat pyproject.toml deploy/constraints.txt | cksum) $PWD"
    # Checking needs more than running, so what was installed for it serves both.
    if [ -x .venv/bin/toolledger ] && [ -r "$stamp" ] && grep -qxF -e "$wanted $extras" -e "$wanted server,embedded,dev" "$stamp"; then
        return
    fi
    if ! .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        python=$(find_python) || fail "Python 3.11 or newer is needed: install it, or name it in PYTHON"
        printf 'making .venv with %s\n' "$("$python" --version 2>&1)" >&2
        "$python" -m venv --clear .venv >&2 ||
            fail "$python cannot make a venv: install its venv module (python3-venv on Debian and Ubuntu)"
    fi
    printf 'installing toolledger[%s] into .venv, once: some 300 MB, a minute or two\n' "$extras" >&2
    rm -f "$stamp"
    .venv/bin/python -m pip install --disable-pip-version-check --no-input -c deploy/constraints.txt -e ".[$extras]" >&2 ||
        fail "the installation failed, see above: mend the network or the disk and start again"
    printf '%s\n' "$wanted $extras" >"$stamp"
}
