# What the scripts beside this one share; sourced, not run. POSIX sh.

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
venv=$root/.venv

say() {
    printf '%s\n' "$*" >&2
}

die() {
    say "$(basename -- "$0"): $*"
    exit 1
}

# apt_install PACKAGE...: fails, quietly, where this user may not install packages.
apt_install() {
    command -v apt-get >/dev/null || return 1
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null && sudo -n true 2>/dev/null || return 1
        as_root='sudo -n'
    fi
    say "Installing $* with apt-get"
    # The lock: a fresh Debian may be at its own first update.
    for step in update "install --yes --no-install-recommends $*"; do
        # shellcheck disable=SC2086  # they are lists of words
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 $step >&2 || return 1
    done
}

# Finds mosquitto, which Debian keeps where only root's PATH looks, or installs it.
ensure_broker() {
    PATH=$PATH:/usr/local/sbin:/usr/sbin
    export PATH
    if ! command -v mosquitto >/dev/null || ! command -v mosquitto_pub >/dev/null; then
        apt_install mosquitto mosquitto-clients ||
            die "this runs a real broker: install mosquitto and mosquitto-clients, and run it again"
    fi
}

# run_tests_module MODULE ARGUMENTS...: a program of the tests', in the folder that it was called from.
run_tests_module() {
    ensure_broker
    ensure_venv dev
    PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
    export PYTHONPATH
    exec "$venv/bin/python" -P -m "$@"
}

# Finds the Python to make .venv with: $PYTHON, or else python3.
find_python() {
    python=${PYTHON:-python3}
    command -v "$python" >/dev/null || die "there is no $python: install Python 3.11 or newer"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$python is $("$python" -V 2>&1): install Python 3.11 or newer, and name it by PYTHON=/its/path if it is not python3"
    # A 64-bit kernel often carries a 32-bit Raspberry Pi OS, so uname would not tell.
    "$python" -c 'import sys; sys.exit(sys.maxsize < 2**32)' ||
        die "$python is a 32-bit program, for which ONNX Runtime is not built: install the 64-bit system"
    # Debian's python3 -m venv exists without ensurepip, and fails half-way.
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        apt_install python3-venv || true
        "$python" -c 'import ensurepip' 2>/dev/null ||
            die "$python cannot make virtual environments: run \`sudo apt-get install python3-venv\`, and this again"
    fi
}

# ensure_venv demo|dev: makes .venv and installs into it, if that was not done, or for another pyproject.toml.
# The stamp holds the checkout's path, because a moved .venv has programs that name the old place.
ensure_venv() {
    stamp="$root $(cksum <"$root/pyproject.toml")"
    if [ -f "$venv/edge-slm-$1" ] && [ "$(cat "$venv/edge-slm-$1")" = "$stamp" ] && "$venv/bin/python" -P -c 'import agent' 2>/dev/null; then
        return
    fi
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1 || moved; then
        find_python
        say "Making $venv"
        "$python" -m venv --clear "$venv" || die "$venv could not be made: see above"
    fi
    rm -f "$venv/edge-slm-demo" "$venv/edge-slm-dev"
    say "Installing edge-slm-agent into $venv"
    # 25.1 is the first pip that knows --group; the model's progress needs 24.1, and Debian 12 brings 23.0.
    pip 'pip>=25.1'
    if [ "$1" = dev ]; then
        pip --editable "$root[cpu,demo]" --group "$root/pyproject.toml:dev"
        printf '%s\n' "$stamp" >"$venv/edge-slm-dev"
    else
        pip --editable "$root[cpu,demo]"
    fi
    printf '%s\n' "$stamp" >"$venv/edge-slm-demo"
}

# Whether .venv was made when the checkout lay elsewhere.
moved() {
    for each in "$venv/edge-slm-demo" "$venv/edge-slm-dev"; do
        if [ -f "$each" ] && [ "$(sed 's/ [0-9]* [0-9]*$//' "$each")" != "$root" ]; then
            say "$venv was made in another place"
            return 0
        fi
    done
    return 1
}

pip() {
    "$venv/bin/python" -m pip --disable-pip-version-check install --upgrade-strategy only-if-needed "$@" >&2 ||
        die "pip could not install what is needed: see above; check the network and \`pip config list\`, and run this again"
}
