# What scripts/demo and scripts/test share: a Python, the environment .venv, and what is installed in it.
# The caller has set $root. POSIX sh.
# shellcheck shell=sh

: "${root:?}"
venv="$root/.venv"

TORCH='torch==2.13.0' # by itself and first: later steps then find it there and choose no other build

say() { printf '%s\n' "$*"; }
step() { printf '\n== %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Sets $python to a Python of 3.10 or newer: $PYTHON if that is set, else the first on the PATH that will do.
find_python() {
    found=''
    set -- python3 python3.14 python3.13 python3.12 python3.11 python3.10
    if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; fi
    for python in "$@"; do
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && return 0
        found="$found${found:+, }$python is $version"
    done
    die "Ostinato needs Python 3.10 or newer, found ${found:-none (looked for: $*)};" \
        "on Debian and Ubuntu: apt install python3 python3-venv (PYTHON=/path/to/python names another)."
}

# Stops unless $python can make an environment, and names the package that is missing.
check_venv() {
    "$python" -c 'import ensurepip, venv' 2>/dev/null && return 0
    case ${python##*/} in
    python3.*) package="${python##*/}-venv" ;;
    *) package=python3-venv ;;
    esac
    die "this Python ($python, $version) lacks the venv module (on Debian and Ubuntu: apt install $package)."
}

# Succeeds if a C compiler is there ($CC if that is set) and finds the C library's headers.
have_compiler() {
    set -- cc gcc clang
    if [ -n "${CC:-}" ]; then set -- "$CC"; fi
    for compiler in "$@"; do
        printf '#include <math.h>\nint main(void) { return 0; }\n' |
            "$compiler" -x c -fsyntax-only - 2>/dev/null && return 0
    done
    return 1
}

# Holds every other script of this checkout back until the shell ends or file 9 is closed.
lock() {
    command -v flock >/dev/null 2>&1 || return 0
    exec 9<"$root/scripts/lib.sh"
    flock -n 9 && return 0
    say "another script is installing here; waiting for it"
    flock 9
}

unlock() { exec 9<&-; }

# Makes $venv, or makes it anew if we made it and it is not whole; one that is not ours is used or left alone.
make_venv() {
    if [ -f "$venv/.ostinato-made" ] && [ -f "$venv/.ostinato-installing" ]; then
        say "the last install did not finish; starting afresh"
    elif "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
        "$venv/bin/python" -c 'import pip' 2>/dev/null || "$venv/bin/python" -m ensurepip ||
            die "$venv has no pip and cannot get it; move it away and run this again."
        return 0
    elif [ ! -f "$venv/.ostinato-made" ] && [ -n "$(ls -A "$venv" 2>/dev/null)" ]; then
        die "$venv is there but holds no Python 3.10 or newer that runs; move it away and run this again."
    fi
    find_python
    check_venv
    step "making $venv with Python $version"
    rm -rf "$venv"
    mkdir "$venv"
    : >"$venv/.ostinato-made"
    : >"$venv/.ostinato-installing"
    "$python" -m venv "$venv" || die "$python could not make $venv (see above)."
}

# What has to be the same for an install to be still good: the recipe, the interpreter and the place.
fingerprint() {
    {
        printf '%s\n%s\n' "$TORCH" "$root"
        "$venv/bin/python" -c 'import sys; print(sys.version)'
        cat "$root/pyproject.toml"
    } | cksum
}

pip_install() {
    quiet=-q
    if [ -t 1 ]; then quiet=''; fi
    # shellcheck disable=SC2086 # empty is no argument
    "$venv/bin/python" -m pip install $quiet --no-input --disable-pip-version-check "$@"
}

# install main|dev: leaves a complete $venv behind, with the package in place (editable), `dev` with the extra of that
# name; quick if it is there already.
install() {
    extra=''
    if [ "$1" != main ]; then extra="[$1]"; fi
    lock
    make_venv
    if [ "$(fingerprint)" != "$(cat "$venv/.ostinato-has-$1" 2>/dev/null)" ]; then
        : >"$venv/.ostinato-installing"
        step "installing $TORCH"
        pip_install "$TORCH" || die "pip could not install $TORCH for $("$venv/bin/python" --version):" \
            "it needs the network and a Python that this torch is built for" \
            "(remove .venv and set PYTHON=/path/to/python to choose another)."
        step "installing Ostinato${extra:+ with what its checks need}"
        pip_install -e "$root$extra" || die "pip could not install Ostinato (see above)."
        fingerprint >"$venv/.ostinato-has-main"
        fingerprint >"$venv/.ostinato-has-$1"
        rm "$venv/.ostinato-installing"
    fi
    unlock
}
