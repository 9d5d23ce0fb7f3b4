#!/bin/sh
# Installs rano: one program, its manual page and its completions. Run it with --help for the options.
#
# A release is fetched, its checksum and signature are checked, and it is put beside the old program and renamed. In a
# checkout rano is built from it instead. Nothing is asked. Only what is named in the last lines is changed.
set -eu

# Filled in when a release is made: the public key of its signature (minisign), and where on GitHub releases are.
KEY=''
OWNER=''
REPO=''

MARK='# added by install.sh of rano'

usage() {
    cat <<'EOF'
usage: install.sh [OPTIONS]

  --version vX.Y.Z   this release instead of the latest; the only way to an older one
  --prefix DIR       below DIR instead of ~/.local: DIR/bin/rano and DIR/share/...
  --system           below /usr/local, for all users (as root)
  --easy-mode        add DIR/bin to the PATH of bash, zsh and fish, once
  --from-source      build it with Rust, from the checkout around this script or from a clone
  --branch NAME      with --from-source: build this branch or tag
  --install-missing  with --from-source: let the package manager install a C compiler
  --uninstall        remove what this script installed; configuration and histories stay
  --dry-run          say what would be done, and do nothing

  --owner NAME, --repo NAME (RANO_OWNER, RANO_REPO)   releases of this repository on GitHub
  RANO_UPDATE_URL=URL                                 releases from elsewhere: URL/latest/download/SHA256SUMS
EOF
}

say() { printf '%s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
fail() {
    printf 'error: %s\n' "$1" >&2
    exit "${2:-1}"
}
has() { command -v "$1" >/dev/null 2>&1; }

main() {
    read_arguments "$@"
    is_linux
    bin=$prefix/bin
    if [ -n "$uninstall" ]; then
        uninstall
        return
    fi
    temporary=''
    new=''
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    not_a_packages_file "$bin/rano"
    if [ -n "$from_source" ]; then
        if [ -n "$dry_run" ]; then plan_of_source; return; fi
        make_temporary
        build
    else
        where_releases_are
        if [ -n "$dry_run" ]; then plan_of_release; return; fi
        make_temporary
        download
    fi
    put_in_place
    path_of_shells
}

read_arguments() {
    version='' prefix='' system='' easy='' from_source='' branch=${RANO_BRANCH:-} uninstall='' dry_run=''
    install_missing=''
    owner=${RANO_OWNER:-$OWNER} repo=${RANO_REPO:-$REPO}
    while [ $# -gt 0 ]; do
        case $1 in
        --version | --prefix | --branch | --owner | --repo)
            if [ -z "${2:-}" ]; then fail "$1 takes a value" 2; fi
            case $1 in
            --version) version=v${2#v} ;;
            --prefix) prefix=$2 ;;
            --branch) branch=$2 ;;
            --owner) owner=$2 ;;
            --repo) repo=$2 ;;
            esac
            shift
            ;;
        --system) system=yes ;;
        --easy-mode) easy=yes ;;
        --from-source) from_source=yes ;;
        --install-missing) install_missing=yes ;;
        --uninstall) uninstall=yes ;;
        --dry-run) dry_run=yes ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            usage >&2
            fail "unknown option $1" 2
            ;;
        esac
        shift
    done
    case $version in
    '' | v[0-9]*.[0-9]*.[0-9]*) ;;
    *) fail "--version takes a version such as v0.2.0, not '${version#v}'" 2 ;;
    esac
    case $version in *[!0-9a-zA-Z.+-]*) fail "'$version' is no version" 2 ;; esac
    if [ -z "$prefix" ]; then
        if [ -n "$system" ]; then
            prefix=/usr/local
        else
            [ -n "${HOME:-}" ] || fail 'HOME is not set: name a directory with --prefix' 2
            prefix=$HOME/.local
        fi
    fi
    case $prefix in
    /*) ;;
    *) prefix=$PWD/$prefix ;;
    esac
    # A script in a file of a checkout builds that checkout, unless a release is asked for.
    checkout=''
    case $0 in
    */install.sh | install.sh)
        folder=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
        if [ -f "$folder/rano/Cargo.toml" ] && [ -f "$folder/Cargo.toml" ]; then
            checkout=$folder
            if [ -z "$version$branch${RANO_UPDATE_URL:-}" ]; then from_source=yes; fi
        fi
        ;;
    esac
    if [ -n "$branch" ]; then from_source=yes; fi
    if [ -n "$branch$version" ]; then checkout=''; fi
}

is_linux() {
    system_name=$(uname -s)
    case $system_name in
    Linux) ;;
    Darwin) fail 'rano needs Linux: macOS has neither its /proc nor eBPF. Run it in a Linux machine or container, where the agents run too.' ;;
    MINGW* | MSYS* | CYGWIN* | Windows*)
        fail 'rano needs Linux: on Windows install it in WSL 2 (https://learn.microsoft.com/windows/wsl/install), where the agents run too.'
        ;;
    *) fail "rano needs Linux, and this is $system_name" ;;
    esac
    case $(uname -m) in
    x86_64 | amd64) arch=x86_64 ;;
    aarch64 | arm64) arch=aarch64 ;;
    *)
        arch=''
        if [ -z "$from_source$uninstall" ]; then
            fail "there are releases for x86_64 and aarch64, and this is $(uname -m): use --from-source"
        fi
        ;;
    esac
}

# What a package manager owns, it also updates and removes.
not_a_packages_file() {
    [ -e "$1" ] || return 0
    if has dpkg-query; then
        ! dpkg-query -S "$1" >/dev/null 2>&1 ||
            fail "$1 belongs to a Debian package: use apt, or another --prefix"
    # Where both are, files are Debian's; and rpm would make an empty database there.
    elif has rpm && rpm -qf "$1" >/dev/null 2>&1; then
        fail "$1 belongs to an RPM package: use dnf or zypper, or another --prefix"
    fi
}

make_temporary() {
    temporary=$(mktemp -d "${TMPDIR:-/tmp}/rano-install.XXXXXX") || fail "cannot write to ${TMPDIR:-/tmp}"
}

clean_up() {
    [ -z "$temporary" ] || rm -rf "$temporary"
    [ -z "$new" ] || rm -f "$new"
}

# ---- a release ----

where_releases_are() {
    if [ -n "${RANO_UPDATE_URL:-}" ]; then
        site=${RANO_UPDATE_URL%/}
    elif [ -n "$owner" ] && [ -n "$repo" ]; then
        site=https://github.com/$owner/$repo/releases
    else
        fail 'this script does not know where releases are: name --owner and --repo, or set RANO_UPDATE_URL' 2
    fi
    case $site in
    https://* | file:///* | http://127.0.0.1:* | http://localhost:* | 'http://[::1]:'*) ;;
    *) fail "releases come by https: not from $site" 2 ;;
    esac
    if [ -n "$version" ]; then from=$site/download/$version; else from=$site/latest/download; fi
}

plan_of_release() {
    say "would fetch $from/SHA256SUMS and its signature"
    say "would fetch rano-${version:-VERSION}-$arch-linux.tar.gz, and check it"
    say_places
}

say_places() {
    say "would install $bin/rano, and keep an older one as $bin/rano.old"
    say "would install its manual page and completions below $prefix/share"
    if [ -n "$easy" ]; then say "would add $bin to the PATH of your shells"; fi
}

# fetch URL FILE
fetch() {
    case $1 in
    file://*)
        cp -- "${1#file://}" "$2" 2>/dev/null || fail "cannot fetch $1"
        return
        ;;
    esac
    code=0
    if has curl; then
        curl --fail --silent --location --proto "=${1%%:*}" --proto-redir '=https' --max-redirs 5 \
            --connect-timeout 20 --speed-limit 1 --speed-time 30 --output "$2" -- "$1" || code=$?
        case $code in
        0) return ;;
        18 | 56 | 92) fail "the download of $1 broke off: try again" ;;
        23) fail "cannot write to $temporary: is the disk full?" ;;
        22) fail "$1 is not there (the server refused it)" ;;
        28) fail "$1 came too slowly" ;;
        *) fail "cannot fetch $1 (curl says $code)" ;;
        esac
    elif has wget; then
        # A static busybox's wget fails with -T.
        case $(wget --version 2>/dev/null || :) in
        GNU*) wget -q -T 30 -O "$2" -- "$1" || code=$? ;;
        *) wget -q -O "$2" -- "$1" || code=$? ;;
        esac
        case $code in
        0) return ;;
        3) fail "cannot write to $temporary: is the disk full?" ;;
        *) fail "cannot fetch $1 (wget says $code)" ;;
        esac
    else
        fail 'install curl or wget first'
    fi
}

sha256_of() {
    if has sha256sum; then
        sha256sum <"$1" | cut -d ' ' -f 1
    elif has openssl; then
        openssl dgst -sha256 -r <"$1" | cut -d ' ' -f 1
    else
        fail 'sha256sum is needed to check the download'
    fi
}

download() {
    say "fetching $from/SHA256SUMS"
    fetch "$from/SHA256SUMS" "$temporary/SHA256SUMS"
    # The list names one archive for this machine, and with it the version. awk: name, checksum.
    line=$(awk -v ending="-$arch-linux.tar.gz" \
        'index($2, "rano-") == 1 && substr($2, length($2) - length(ending) + 1) == ending { print $2, $1 }' \
        "$temporary/SHA256SUMS")
    archive=${line% *} sum=${line#* }
    case $line in
    '') fail "the release has nothing for $arch" ;;
    *[!0-9a-zA-Z.+\ _-]*) fail "$from/SHA256SUMS is no list of checksums of one release" ;;
    esac
    found=${archive#rano-}
    found=${found%"-$arch-linux.tar.gz"}
    if [ -n "$version" ] && [ "v$found" != "$version" ]; then
        fail "asked for $version, and the server has v$found under that name"
    fi
    check_signature
    if [ -z "$version" ] && [ -x "$bin/rano" ]; then
        installed=$("$bin/rano" --version 2>/dev/null </dev/null || :)
        if is_older "$found" "${installed#rano }"; then
            fail "$installed is installed, and the latest release there is $found: name it with --version to go back"
        fi
    fi
    fetch "$site/download/v$found/$archive" "$temporary/$archive"
    if [ "$(sha256_of "$temporary/$archive")" != "$sum" ]; then
        fail "$archive has another checksum than SHA256SUMS says: nothing was installed"
    fi
    stem=${archive%.tar.gz}
    tar -xzf "$temporary/$archive" -C "$temporary" "$stem/rano" || fail "cannot unpack $archive: is the disk full?"
    program=$temporary/$stem/rano
    if [ -L "$temporary/$stem" ] || [ -L "$program" ] || [ ! -f "$program" ]; then
        fail "$archive holds no program"
    fi
}

check_signature() {
    by_hand="minisign -V -P ${KEY:-KEY} -m SHA256SUMS (with $from/SHA256SUMS.minisig beside it)"
    if [ -z "$KEY" ]; then
        warn "only the checksum is checked: this script has no key. By hand: $by_hand"
    elif ! has minisign; then
        warn "only the checksum is checked: minisign is not installed. By hand: $by_hand"
    else
        fetch "$from/SHA256SUMS.minisig" "$temporary/SHA256SUMS.minisig"
        signed=$(minisign -V -Q -P "$KEY" -m "$temporary/SHA256SUMS" 2>/dev/null) ||
            fail 'the signature of SHA256SUMS is wrong: nothing was installed'
        if [ "$signed" != "rano $found" ]; then
            fail "the signature is that of $signed, and not of rano $found: nothing was installed"
        fi
        say "the signature is right: rano $found"
    fi
}

# is_older A B: of versions X.Y.Z, A before B. What is no such version is not older.
is_older() {
    case $1.$2 in *[!0-9.]*) return 1 ;; esac
    awk -v a="$1" -v b="$2" 'BEGIN {
        split(a, x, "."); split(b, y, ".")
        for (i = 1; i <= 3; i++) if (x[i] + 0 != y[i] + 0) exit (x[i] + 0 < y[i] + 0) ? 0 : 1
        exit 1
    }'
}

# ---- from source ----

plan_of_source() {
    if [ -n "$checkout" ]; then
        say "would build rano from $checkout with cargo"
    else
        say "would clone https://github.com/$owner/$repo (${branch:-${version:-its main branch}}) and build it with cargo"
    fi
    if [ -n "$install_missing" ]; then say 'would let the package manager install a C compiler where there is none'; fi
    say_places
}

build() {
    has cargo || fail 'building needs Rust 1.95 or later: https://rustup.rs'
    has cc || has gcc || compiler
    if [ -z "$checkout" ]; then
        has git || fail 'building from a clone needs git'
        if [ -z "$owner" ] || [ -z "$repo" ]; then
            fail 'name the repository to build from: --owner and --repo' 2
        fi
        checkout=$temporary/rano
        set -- --quiet --depth 1
        if [ -n "$branch$version" ]; then set -- "$@" --branch "${branch:-$version}"; fi
        git clone "$@" "https://github.com/$owner/$repo" "$checkout" || fail "cannot clone $owner/$repo"
    fi
    say "building rano in $checkout (some minutes)"
    (cd "$checkout" && cargo build --release --locked --package rano) || fail 'rano does not build'
    program=${CARGO_TARGET_DIR:-$checkout/target}/release/rano
    case $program in
    /*) ;;
    *) program=$checkout/$program ;;
    esac
    [ -f "$program" ] || fail "cargo built no $program"
}

compiler() {
    for manager in apt-get dnf zypper apk pacman; do has "$manager" && break; done
    case $manager in
    apt-get) set -- apt-get install -y gcc libc6-dev ;;
    dnf) set -- dnf install -y gcc glibc-devel ;;
    zypper) set -- zypper --non-interactive install gcc glibc-devel ;;
    apk) set -- apk add gcc musl-dev ;;
    *) set -- pacman -S --needed --noconfirm gcc glibc ;;
    esac
    if [ -z "$install_missing" ]; then
        fail "there is no C compiler: run '$*' as root, or give --install-missing"
    fi
    if [ "$(id -u)" -ne 0 ]; then set -- sudo "$@"; fi
    say "installing a C compiler: $*"
    "$@" || fail 'no C compiler could be installed'
}

# ---- in place ----

put_in_place() {
    mkdir -p "$bin" 2>/dev/null || :
    if [ ! -d "$bin" ] || [ ! -w "$bin" ]; then
        fail "cannot write to $bin: run it as root, or name another directory with --prefix"
    fi
    if [ -d "$bin/rano" ]; then fail "$bin/rano is a directory"; fi
    new=$bin/.rano.new.$$
    { cp -- "$program" "$new" && chmod 755 "$new"; } 2>/dev/null || fail "cannot write $new: is the disk full?"
    said=$("$new" --version 2>&1 </dev/null) || fail "the new program does not run here: $said"
    if [ -e "$bin/rano" ]; then
        rm -f "$bin/rano.old"
        ln -- "$bin/rano" "$bin/rano.old" 2>/dev/null || cp -p -- "$bin/rano" "$bin/rano.old" 2>/dev/null ||
            fail "cannot keep the old program as $bin/rano.old: is the disk full?"
        if has getcap && [ -n "$(getcap "$bin/rano" 2>/dev/null)" ]; then
            warn "the old program had capabilities: give them to the new one with setcap, as 'rano doctor' says"
        fi
    fi
    mv -f -- "$new" "$bin/rano" || fail "cannot write $bin/rano"
    new=''
    print_to share/man/man1/rano.1 man
    print_to share/bash-completion/completions/rano completions bash
    print_to share/zsh/site-functions/_rano completions zsh
    print_to share/fish/vendor_completions.d/rano.fish completions fish
    say "installed $said: $bin/rano"
}

# print_to FILE ARGUMENT...: what rano prints, without which rano works too.
print_to() {
    file=$prefix/$1
    shift
    if ! { mkdir -p "$(dirname -- "$file")" && "$bin/rano" "$@" >"$file"; } 2>/dev/null; then
        rm -f "$file"
        warn "cannot write $file"
    fi
}

path_of_shells() {
    case ":$PATH:" in
    *":$bin:"*) is_in_path=yes ;;
    *) is_in_path='' ;;
    esac
    if [ -z "$easy" ]; then
        if [ -z "$is_in_path" ]; then say "to have it in your PATH (or use --easy-mode): export PATH=\"$bin:\$PATH\""; fi
        return
    fi
    case $bin in *[!0-9a-zA-Z/._+~@-]*) fail "$bin cannot be added to the PATH of shells: add it by hand" ;; esac
    posix="case \":\$PATH:\" in *:$bin:*) ;; *) export PATH=\"$bin:\$PATH\" ;; esac $MARK"
    fish="contains $bin \$PATH; or set -gx PATH $bin \$PATH $MARK"
    each_set_up add
    say 'a shell that starts now finds rano'
}

# each_set_up add|remove
each_set_up() {
    [ -n "${HOME:-}" ] || return 0
    zdotdir=${ZDOTDIR:-$HOME}
    "$1" "$HOME/.bashrc" bash "${posix:-}"
    "$1" "$zdotdir/.zshrc" zsh "${posix:-}"
    "$1" "${XDG_CONFIG_HOME:-$HOME/.config}/fish/config.fish" fish "${fish:-}"
}

# add FILE SHELL LINE: to set-ups that exist, and to those of shells that are here.
add() {
    if [ ! -e "$1" ] && ! has "$2"; then return; fi
    if [ -e "$1" ] && grep -qF -- "$3" "$1"; then return; fi
    remove "$1"
    end=''
    if [ -s "$1" ] && [ -n "$(tail -c 1 -- "$1")" ]; then end='
'
    fi
    if mkdir -p "$(dirname -- "$1")" && printf '%s%s\n' "$end" "$3" >>"$1"; then
        say "added $bin to PATH in $1"
    else
        warn "cannot write $1"
    fi
}

# remove FILE: the lines that add() made. The file is written, not replaced, because it may be a link.
remove() {
    [ -f "$1" ] && grep -qF -- "$MARK" "$1" || return 0
    rest=$(grep -vF -- "$MARK" "$1" && echo x || echo x)
    printf '%s' "${rest%x}" >"$1" || warn "cannot write $1"
}

uninstall() {
    not_a_packages_file "$bin/rano"
    for file in bin/rano bin/rano.old share/man/man1/rano.1 share/bash-completion/completions/rano \
        share/zsh/site-functions/_rano share/fish/vendor_completions.d/rano.fish; do
        file=$prefix/$file
        [ -e "$file" ] || [ -L "$file" ] || continue
        if [ -n "$dry_run" ]; then
            say "would remove $file"
        else
            rm -f -- "$file" 2>/dev/null || fail "cannot remove $file: run it as root"
            say "removed $file"
        fi
    done
    if [ -n "$dry_run" ]; then
        say 'would remove lines of this script from the set-ups of your shells'
    else
        each_set_up remove
    fi
    say 'configuration (~/.config/rano) and histories (observer.sqlite) stay'
}

main "$@"
