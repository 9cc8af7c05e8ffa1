#!/usr/bin/env bash
# Installs what tcptrace needs and does not bring itself. `make` calls it; by hand: scripts/bootstrap.sh STEP
#
#   run         system packages, .venv and in it what building and running need
#   test        in .venv what testing needs besides
#   test-tools  system packages that the tests run as root need besides
#   bench       what the benchmarks need besides: the tools that they compare with
#   kernels     system packages that fetching and booting other kernels needs
#
# System packages come by apt, and only if something is missing; elsewhere it says what to install.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
PATH=$PATH:/usr/sbin:/sbin # not everybody's PATH has them, and tcpdump, ethtool and tc are there

say() { echo "tcptrace: $*" >&2; }
die() { say "$*"; exit 1; }

# --- What is missing: each thing is looked for itself, not the package that brings it.

missing() {
    local thing
    for thing in "$@"; do
        has "$thing" >/dev/null 2>&1 || echo "$thing"
    done
}

has() {
    case $1 in
    venv) "$PYTHON" -c 'import ensurepip, venv' ;;
    headers) "$PYTHON" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ;;
    gcc) command -v gcc ;;
    libc) echo '#include <stdlib.h>' | gcc -E - ;;
    bcc) /usr/bin/python3 -c 'import bcc' ;; # the system's own Python has it, whichever Python runs tcptrace
    pcap) "$PYTHON" -c 'import ctypes; ctypes.CDLL("libpcap.so.0.8")' ||
        "$PYTHON" -c 'import ctypes; ctypes.CDLL("libpcap.so.1")' ;;
    services) "$PYTHON" -c 'import socket; socket.getservbyname("https")' ;;
    iproute) command -v ip && command -v ss && command -v tc ;;
    procps) command -v ps && command -v sysctl ;;
    ostermanns-tcptrace) ls /usr/bin/tcptrace ;; # our name, too: no other place counts
    debian-keys) ls /usr/share/keyrings/debian-archive-keyring.gpg ;;
    *) command -v "$1" ;;
    esac
}

# --- Which package brings it.

package() { # MANAGER THING
    case $1:$2 in
    apt-get:venv) echo "$python_name-venv" ;;
    apt-get:headers) echo "$python_name-dev" ;;
    apt-get:libc) echo libc6-dev ;;
    apt-get:bcc) echo python3-bpfcc ;;
    apt-get:pcap) echo libpcap0.8 ;; # where it is called libpcap0.8t64, that one provides this name
    apt-get:services) echo netbase ;;
    apt-get:iproute) echo iproute2 ;;
    apt-get:capinfos) echo tshark wireshark-common ;;
    apt-get:taskset | dnf:taskset | pacman:taskset | zypper:taskset) echo util-linux ;;
    apt-get:tcptop-bpfcc) echo bpfcc-tools ;;
    apt-get:ostermanns-tcptrace) echo tcptrace ;;
    apt-get:xz) echo xz-utils ;;
    apt-get:qemu-system-x86_64) echo qemu-system-x86 ;;
    apt-get:dpkg-deb) echo dpkg ;;
    apt-get:debian-keys) echo debian-archive-keyring ;;

    dnf:venv) echo python3-libs ;;
    dnf:headers) echo python3-devel ;;
    dnf:libc) echo glibc-devel ;;
    dnf:bcc) echo python3-bcc ;;
    dnf:pcap) echo libpcap ;;
    dnf:services) echo setup ;;
    dnf:iproute) echo iproute iproute-tc ;;
    dnf:procps) echo procps-ng ;;
    dnf:tshark | dnf:capinfos) echo wireshark-cli ;;
    dnf:qemu-system-x86_64) echo qemu-system-x86-core ;;
    dnf:apt-get) echo apt ;;
    dnf:dpkg-deb) echo dpkg ;;
    dnf:debian-keys) echo debian-keyring ;;

    pacman:venv | pacman:headers) echo python ;;
    pacman:libc) echo glibc ;;
    pacman:bcc) echo python-bcc ;;
    pacman:pcap) echo libpcap ;;
    pacman:services) echo iana-etc ;;
    pacman:iproute) echo iproute2 ;;
    pacman:procps) echo procps-ng ;;
    pacman:tshark | pacman:capinfos) echo wireshark-cli ;;
    pacman:qemu-system-x86_64) echo qemu-system-x86 ;;
    pacman:apt-get) echo apt ;;
    pacman:dpkg-deb) echo dpkg ;;
    pacman:debian-keys) echo debian-archive-keyring ;;

    zypper:venv) echo python3 ;;
    zypper:headers) echo python3-devel ;;
    zypper:libc) echo glibc-devel ;;
    zypper:bcc) echo python3-bcc ;;
    zypper:pcap) echo libpcap1 ;;
    zypper:services) echo netcfg ;;
    zypper:iproute) echo iproute2 ;;
    zypper:tshark | zypper:capinfos) echo wireshark ;;
    zypper:qemu-system-x86_64) echo qemu-x86 ;;
    zypper:apt-get) echo apt ;;
    zypper:dpkg-deb) echo dpkg ;;
    zypper:debian-keys) echo debian-archive-keyring ;;

    *) echo "$2" ;; # named alike everywhere
    esac
}

packages() { # MANAGER THING...
    local manager=$1 thing
    shift
    for thing in "$@"; do package "$manager" "$thing"; done | sort -u | paste -sd ' '
}

install_system() { # THING...
    local things manager command as_root log
    mapfile -t things < <(missing "$@")
    [ ${#things[@]} -gt 0 ] || return 0

    for manager in apt-get dnf pacman zypper none; do
        command -v "$manager" >/dev/null && break
    done
    case $manager in
    none) die "missing: ${things[*]}. On Debian these are $(packages apt-get "${things[@]}"): install the like of them" ;;
    pacman) command="pacman -S $(packages pacman "${things[@]}")" ;;
    *) command="$manager install $(packages "$manager" "${things[@]}")" ;;
    esac
    [ "$manager" = apt-get ] || die "missing: ${things[*]}. Install them with: $command"

    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        as_root=$(command -v sudo) || die "missing: ${things[*]}. Install them as root (no sudo here) with: $command"
    fi
    say "installing system packages: $(packages apt-get "${things[@]}")"
    # shellcheck disable=SC2046  # a list of words
    log=$({
        $as_root apt-get update -qq # what fails here may still be installed from the lists that are there
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            $(packages apt-get "${things[@]}")
    } </dev/null 2>&1) || true

    mapfile -t things < <(missing "$@")
    [ ${#things[@]} -gt 0 ] || return 0
    echo "$log" >&2
    case " ${things[*]} " in
    *" bcc "*) say "on Ubuntu, python3-bpfcc is in the component universe: add-apt-repository universe" ;;
    esac
    die "still missing: ${things[*]}. This did not work: $command"
}

offered() { # PACKAGE: whether this distribution has it, as far as apt knows
    command -v apt-cache >/dev/null || return
    if ! compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null; then # containers come without
        $([ "$(id -u)" -eq 0 ] || command -v sudo) apt-get update -qq </dev/null >&2 || true
    fi
    [ -n "$(apt-cache show "$1" 2>/dev/null)" ] # its exit code is 0 for a name that others only mention
}

# --- What python3 is: apt can only complete the system's.

check_python() {
    "$PYTHON" -c '' 2>/dev/null || die "no $PYTHON here: tcptrace needs Python 3.11 or newer"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "needs Python 3.11 or newer, and $PYTHON is $("$PYTHON" -V): choose another by PYTHON=python3.12"
    local interpreter
    interpreter=$("$PYTHON" -c 'import os, sys; print(os.path.realpath(sys.executable))')
    python_name=${interpreter##*/} # python3.11, and Debian names its packages after it
    case $interpreter in /usr/bin/*) return ;; esac
    if [ -n "$(missing venv headers)" ]; then
        die "$interpreter lacks $(missing venv headers | paste -sd ' ') (ensurepip, Python.h): complete it or choose another by PYTHON=/usr/bin/python3"
    fi
}

# --- What pip installs: the lists are in pyproject.toml.

install_python() { # EXPRESSION over pyproject
    say "installing Python packages into .venv"
    local requirements
    requirements=$(.venv/bin/python -c "import tomllib
pyproject = tomllib.load(open('pyproject.toml', 'rb'))
print(*[$1], sep='\n')")
    mapfile -t requirements <<<"$requirements"
    .venv/bin/python -m pip --disable-pip-version-check --no-input install -q "${requirements[@]}"
}

stamp() { # as old as the start of the step
    touch -d "@$started" ".venv/.$1"
}

started=$(date +%s.%N)
case ${1:-} in
run)
    check_python
    install_system venv headers gcc libc bcc pcap services
    .venv/bin/python -c 'import pip' 2>/dev/null || "$PYTHON" -m venv --clear .venv
    install_python "*pyproject['build-system']['requires'], *pyproject['project']['dependencies']"
    stamp run
    ;;
test)
    install_python "*pyproject['project']['optional-dependencies']['test']"
    stamp test
    ;;
bench)
    install_system iproute procps ethtool taskset iperf3 sockperf tcpdump tshark
    ! offered bpfcc-tools || install_system tcptop-bpfcc
    ! offered tcptrace || install_system ostermanns-tcptrace # where there is none, its row is missing
    install_python "*pyproject['project']['optional-dependencies']['bench']"
    ;;
test-tools)
    install_system iproute procps ethtool tcpdump tshark capinfos xz zstd
    ! offered vagrant || install_system vagrant # Ubuntu 24.04 has none: there the Vagrantfile's tests are skipped
    ;;
kernels)
    install_system qemu-system-x86_64 apt-get dpkg-deb debian-keys
    ;;
*) die "usage: scripts/bootstrap.sh run | test | test-tools | bench | kernels" ;;
esac
