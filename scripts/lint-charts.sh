#!/usr/bin/env bash
# Checks what goes to a cluster: charts, manifests, rules, dashboard, Dockerfile. Called by scripts/lint.sh; by hand:
#
#   scripts/tools.sh with helm kubectl lint -- scripts/lint-charts.sh [--self-test | --write]
#
# --self-test feeds each check something bad, and fails unless the check finds it. --write writes anew what is compared.
#
# Charts are rendered with both Helms, for the oldest and newest Kubernetes they support and for versions where something
# changes between them: 1.29 brought native sidecars, 1.30 the policies (1.33 is the oldest that is still maintained).
set -euo pipefail
shopt -s inherit_errexit nullglob
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly helms=(helm-3 helm-4)
readonly kubernetes=(1.25 1.29 1.33 1.36)
# What a cluster has beyond Helm's built-in list: the operator's resources, which charts ask for before using them.
readonly operator=monitoring.coreos.com/v1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

failed=()
check() {
  local name=$1
  shift
  printf '== %s\n' "$name"
  "$@" || failed+=("$name")
}

say() { printf '%s\n' "$*" >&2; }

verdict() {
  echo
  if [[ ${#failed[@]} -gt 0 ]]; then
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
  fi
  echo "$1"
}

# files PATTERN…: those of the repository, also not yet committed ones. Nothing below a symbolic link.
files() { git ls-files --cached --others --exclude-standard -- "$@" | sort -u | while read -r file; do
  if [[ -e $file ]]; then printf '%s\n' "$file"; fi
done; }

# some WHAT FILE…: fails when there is none, so that a check never passes for want of anything to look at.
some() {
  [[ $# -gt 1 ]] || {
    say "there is no $1"
    return 1
  }
}

# --- charts: rendering ---------------------------------------------------------------------------------------------

# charts_in FOLDER: the folders of the charts there. applications_in: of those that can be installed.
charts_in() { find "$1" -name Chart.yaml -printf '%h\n' | sort; }

applications_in() {
  local chart
  while read -r chart; do
    if ! grep -q '^type: library$' "$chart/Chart.yaml"; then printf '%s\n' "$chart"; fi
  done < <(charts_in "$1")
}

# fresh_charts FOLDER: a copy of the charts, with the library in those that name it as a dependency.
fresh_charts() {
  local chart
  rm -rf "$1"
  cp -a charts "$1"
  while read -r chart; do
    if grep -q 'repository: file:' "$chart/Chart.yaml" && [[ ! -e $chart/charts ]]; then
      helm_quietly helm-3 dependency update "$chart" >/dev/null || return 1
    fi
  done < <(applications_in "$1")
}

# Helm's remark that it follows the link to the library is not a finding.
helm_quietly() { "$@" 2> >(grep -v 'found symbolic link' >&2); }

# api_versions KUBERNETES: as arguments for helm template.
api_versions() {
  printf -- '--api-versions=%s/%s\n' "$operator" PodMonitor "$operator" PrometheusRule
  printf -- '--api-versions=%s\n' "$operator" policy/v1
  if [[ $1 != 1.25 && $1 != 1.29 ]]; then
    printf -- '--api-versions=admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy%s\n' '' Binding
  fi
}

# render FOLDER CHART…: into FOLDER/HELM/KUBERNETES/CHART-VALUES.yaml, with every file in CHART/ci.
render() {
  local folder=$1 chart values helm version wanted=() broken=0
  shift
  for chart in "$@"; do
    # An example chart has no ci folder: its own values are the case.
    wanted=("$chart"/ci/*-values.yaml)
    if [[ ${#wanted[@]} -eq 0 ]]; then wanted=("$chart/values.yaml"); fi
    for values in "${wanted[@]}"; do
      for version in "${kubernetes[@]}"; do
        # The chart refuses what the cluster cannot do.
        if [[ $version == 1.25 ]] && grep -qE '^ *mode: native$' "$values"; then continue; fi
        mapfile -t arguments < <(api_versions "$version")
        for helm in "${helms[@]}"; do
          mkdir -p "$folder/$helm/$version"
          helm_quietly "$helm" template demo "$chart" --namespace demo --values "$values" --kube-version "$version" \
            "${arguments[@]}" >"$folder/$helm/$version/${chart##*/}-$(basename "$values")" || {
            say "$helm template $chart --values $values --kube-version $version failed"
            broken=1
          }
        done
      done
    done
  done
  return "$broken"
}

check_rendering() {
  local applications
  some "charts/bellwether/ci/*-values.yaml" charts/bellwether/ci/*-values.yaml || return 1
  mapfile -t applications < <(applications_in "$work/charts")
  render "$work/rendered" "${applications[@]}"
}

# Blank lines and blanks at the end of lines apart, which Helm 4 leaves where Helm 3 does not.
same_manifests() { diff -rZB "$1" "$2"; }

lint_charts_in() {
  local chart values helm said broken=0
  while read -r chart; do
    for helm in "${helms[@]}"; do
      for values in "$chart/values.yaml" "$chart"/ci/*-values.yaml; do
        said=$(helm_quietly "$helm" lint --strict --values "$values" --kube-version "${kubernetes[-1]}" "$chart" 2>&1) || {
          say "$helm lint $chart --values $values: $said"
          broken=1
        }
      done
    done
  done < <(charts_in "$1")
  return "$broken"
}

# --- charts: values, documentation -----------------------------------------------------------------------------------

# Every object that names its fields refuses others; elements of lists apart, which are Kubernetes' own (containers,
# volumes): the schemas of Kubernetes look at them when they are rendered.
check_schemas_closed() {
  lint-python - "$1"/*/values.schema.json <<'PYTHON'
import json, sys

def open_ones(schema, path):
    if isinstance(schema, list):
        for index, item in enumerate(schema):
            yield from open_ones(item, f"{path}/{index}")
    elif isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and not {"items", "if", "then", "else"} & set(path.split("/")):
            if schema.get("additionalProperties", schema.get("unevaluatedProperties")) is not False:
                yield path
        for key, value in schema.items():
            yield from open_ones(value, f"{path}/{key}")

found = [f"{file}: {path or '/'} lets unknown keys pass" for file in sys.argv[1:]
         for path in open_ones(json.load(open(file)), "")]
print("\n".join(found), file=sys.stderr, end="\n" if found else "")
sys.exit(bool(found) or len(sys.argv) < 2)
PYTHON
}

# refuses_unknown CHART KEY: both Helms refuse the value, and say which it is.
refuses_unknown() {
  local helm said
  for helm in "${helms[@]}"; do
    if said=$("$helm" template demo "$1" --set "$2=1" 2>&1); then
      say "$helm accepts the unknown value $2 of $1"
      return 1
    elif [[ $said != *"${2##*.}"* ]]; then
      say "$helm refuses the unknown value $2 of $1 for another reason: $said"
      return 1
    fi
  done
}

check_unknown_values_refused() {
  local chart key broken=0
  while read -r chart; do
    # A user's chart need not have a schema.
    if [[ $chart == */examples/* ]]; then continue; fi
    refuses_unknown "$chart" noSuchValue || broken=1
    # The keys that have fields of their own, as the schema tells.
    while read -r key; do
      refuses_unknown "$chart" "$key.noSuchValue" || broken=1
    done < <(lint-python -c '
import json, sys
for key, value in json.load(open(sys.argv[1]))["properties"].items():
    if "properties" in value: print(key)' "$chart/values.schema.json")
  done < <(applications_in "$work/charts")
  return "$broken"
}

# check_readmes FOLDER: the READMEs of the charts there are what helm-docs makes of values.yaml and README.md.gotmpl.
check_readmes() {
  local template chart broken=0
  rm -rf "$work/readmes"
  cp -a "$1" "$work/readmes"
  some "README.md.gotmpl" "$1"/*/README.md.gotmpl || return 1
  for template in "$1"/*/README.md.gotmpl; do
    chart=$(basename "${template%/*}")
    # Where charts/check.sh --write-docs writes them.
    helm-docs --log-level error --chart-search-root "$work/readmes" --chart-to-generate "$work/readmes/$chart" \
      --template-files README.md.gotmpl --sort-values-order file || return 1
    diff -u "$1/$chart/README.md" "$work/readmes/$chart/README.md" || broken=1
  done
  [[ $broken -eq 0 ]] || say "make generate writes them anew"
  return "$broken"
}

# --- what was rendered -------------------------------------------------------------------------------------------------

# validate VERSION FILE…: with more versions as VERSION,VERSION.
validate() {
  local versions=$1
  shift
  # shellcheck disable=SC2086 # several arguments
  lint-python scripts/validate-manifests.py ${versions:+$(printf -- '--kubernetes %s ' ${versions//,/ })} \
    --crds "$BELLWETHER_CRDS" "$@"
}

check_rendered_valid() {
  local version broken=0
  for version in "${kubernetes[@]}"; do
    mkdir -p "$work/rules"
    validate "$version" --rules "$work/rules" "$work/rendered"/*/"$version"/*.yaml || broken=1
  done
  return "$broken"
}

# The rules as they reach Prometheus: the chart narrows them to its release.
check_rendered_rules() {
  some "PrometheusRule in what was rendered" "$work"/rules/*.yaml && promtool_check "$work"/rules/*.yaml
}

promtool_check() {
  local said
  said=$(promtool check rules --lint=all --lint-fatal "$@" 2>&1) || {
    say "$said"
    return 1
  }
}

# without_exceptions: of the findings on stdin, those that are not in scripts/lint-charts.exceptions. Fails if there are any.
without_exceptions() {
  local finding pattern broken=0
  while read -r finding; do
    for pattern in "${exceptions[@]}"; do
      if [[ $finding =~ $pattern ]]; then
        printf '%s\n' "$pattern" >>"$work/exceptions-used"
        continue 2
      fi
    done
    say "${finding#"$work/"}"
    broken=1
  done
  return "$broken"
}

# users_own CONTAINER: whether it comes from a file of values, and is the user's affair.
users_own() { grep -qrE -- "- name: $1\$" charts/*/ci; }

# score FILE…
score() {
  local file line
  for file in "$@"; do
    # Without findings 0, with findings 1 and a list, without having looked 1 and nothing.
    kube-score score --kubernetes-version "v${kubernetes[-1]}" --output-format ci "$file" >"$work/scored" ||
      [[ -s $work/scored ]] || printf '%s: kube-score could not look at it\n' "$file"
    while read -r line; do
      if [[ $line =~ \]\ .*:\ \(([a-z0-9-]+)\)\  ]] && users_own "${BASH_REMATCH[1]}"; then continue; fi
      printf '%s: %s\n' "$file" "$line"
    done < <(grep -E '^\[(CRITICAL|WARNING)\]' "$work/scored" || true)
  done | without_exceptions
}

pod_security() {
  local said code=0
  said=$(pod-security "$@" 2>&1) || code=$?
  case $code in
    0) printf '%s\n' "$said" ;;
    1) without_exceptions <<<"$said" ;;
    *)
      say "$said"
      return 1
      ;;
  esac
}

check_exceptions_needed() {
  local pattern broken=0
  for pattern in "${exceptions[@]}"; do
    grep -qxF -- "$pattern" "$work/exceptions-used" || {
      say "scripts/lint-charts.exceptions: nothing needs $pattern any more"
      broken=1
    }
  done
  return "$broken"
}

# --- manifests ---------------------------------------------------------------------------------------------------------

# Everything that kubectl would apply: built Kustomizations, and files that are no part of one.
collect_manifests() {
  local file folder kustomized=()
  mkdir -p "$work/manifests"
  while read -r file; do
    folder=${file%/*}
    kustomized+=("$folder")
    if grep -q '^kind: Component$' "$file"; then
      # Can only be built by who uses it.
      grep -rqF "${folder##*/}" --include=kustomization.yaml manifests examples || {
        say "$folder: no Kustomization here uses this component, so it is not checked"
        return 1
      }
    else
      kubectl kustomize "$folder" >"$work/manifests/${folder//\//-}.yaml" || return 1
    fi
  done < <(files '*kustomization.yaml')
  some "kustomization.yaml" "${kustomized[@]}" || return 1
  while read -r file; do
    for folder in "${kustomized[@]}"; do
      if [[ $file == "$folder"/* ]]; then continue 2; fi
    done
    cp "$file" "$work/manifests/${file//\//-}"
  done < <(files 'manifests/*.yaml' 'examples/*.yaml' ':!manifests/values/*' ':!*/Chart.yaml' ':!*/values.yaml' \
    ':!*/templates/*' ':!*/ci/*')
  some "manifest" "$work"/manifests/*.yaml
}

check_manifests() {
  local versions
  versions=$(IFS=, && echo "${kubernetes[*]:1}") # native sidecars
  collect_manifests && validate "$versions" --skip-newer "$work"/manifests/*.yaml
}

# --- the bad ones ------------------------------------------------------------------------------------------------------

# finds WHAT PATTERN COMMAND…: the command must fail, and say why.
finds() {
  local what=$1 pattern=$2 said
  shift 2
  if said=$("$@" 2>&1); then
    say "not found: $what"
    failed+=("$what")
  elif ! grep -qE -- "$pattern" <<<"$said"; then
    say "$what: refused for another reason than /$pattern/:"
    say "$said"
    failed+=("$what")
  else
    printf 'found: %s\n' "$what"
  fi
}

# passes WHAT COMMAND…: the control; a check that refuses everything finds everything.
passes() {
  local what=$1 said
  shift
  said=$("$@" 2>&1) || {
    say "$what is refused: $said"
    failed+=("$what")
  }
}

# change FILE SED…: fails if that changes nothing.
change() {
  local file=$1
  shift
  cp "$file" "$work/before"
  sed -i "$@" "$file"
  if cmp -s "$file" "$work/before"; then
    say "the self-test does not fit $file any more: $*"
    exit 1
  fi
}

good_manifest() {
  cat <<'YAML'
apiVersion: v1
kind: Pod
metadata:
  name: good
spec:
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    seccompProfile: {type: RuntimeDefault}
  containers:
    - name: good
      image: busybox:1.37
      securityContext:
        readOnlyRootFilesystem: true
        allowPrivilegeEscalation: false
        runAsUser: 65532
        runAsGroup: 65532
        capabilities: {drop: [ALL]}
      resources:
        requests: {cpu: 10m, memory: 16Mi}
        limits: {memory: 16Mi}
---
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: good
spec:
  selector: {matchLabels: {app: good}}
  podMetricsEndpoints:
    - port: telemetry
YAML
}

# bad SED…: the good manifest, changed; prints its path.
bad() {
  good_manifest >"$work/bad.yaml"
  change "$work/bad.yaml" "$@"
  printf '%s' "$work/bad.yaml"
}

self_test_manifests() {
  good_manifest >"$work/good.yaml"
  passes "a good manifest" validate 1.25,1.36 "$work/good.yaml"
  finds "an unknown field" "'imagePolicy' was unexpected" validate 1.36 "$(bad 's/image: /imagePolicy: /')"
  finds "an unknown field deep inside" "'dropp' was unexpected" validate 1.36 "$(bad 's/drop:/dropp:/')"
  finds "an unknown field of a custom resource" "'prot' was unexpected" validate 1.36 "$(bad 's/port:/prot:/')"
  finds "an unknown kind" "has no Podd in v1" validate 1.36 "$(bad 's/kind: Pod$/kind: Podd/')"
  finds "an unknown version of a kind" "has no Pod in v2" validate 1.36 "$(bad 's/: v1$/: v2/')"
  finds "a value of the wrong type" "is not of type" validate 1.36 "$(bad 's/65532/"65532"/')"
  finds "a key twice" "there twice" validate 1.36 "$(bad 's/^kind: Pod$/&\n&/')"
  finds "an object twice" "there twice" validate 1.36 "$(bad -n 'p; H; /^---$/ {x; p}')"
  finds "an object without a name" "without a name" validate 1.36 "$(bad '0,/^  name: good$/s//  labels: {a: b}/')"
  finds "a null" "containers.*null" validate 1.36 "$(bad 's/image: .*/image:/')"
  finds "a file without an object" "holds no object" validate 1.36 "$(bad 's/^/#/')"
  finds "a field that an older Kubernetes lacks" "Kubernetes 1.25.*'restartPolicy' was unexpected" \
    validate 1.25,1.36 "$(bad -e 's/  containers:/  initContainers:/' -e 's/image: .*/&\n      restartPolicy: Always/' \
      -e 's/^---/  containers: [{name: a, image: "a:1"}]\n&/')"

  # The pod only: kube-score knows no custom resources.
  passes "a good pod, by kube-score" score "$work/good.yaml"
  finds "what kube-score cannot read" "could not look" score "$(bad 's/^kind: /{&/')"
  finds "a privileged container" "privileged" score "$(bad 's/allowPriv.*/privileged: true/')"
  finds "a container that can write to its image" "writable root" score "$(bad 's/readOnlyRoot.*: true/readOnlyRootFilesystem: false/')"
  finds "a container without a memory limit" "Memory limit" score "$(bad 's/limits:.*/limits: {}/')"
  finds "an image without a version" "tag" score "$(bad 's/busybox:1.37/busybox:latest/')"

  passes "a good pod, by the restricted standard" pod_security "$work/good.yaml"
  finds "a pod that may be root" "runAsNonRoot" pod_security "$(bad 's/runAsNonRoot: true/runAsNonRoot: false/')"
  finds "a pod that may gain privileges" "allowPrivilegeEscalation" pod_security "$(bad '/allowPriv/d')"
  finds "a pod on the host's network" "hostNetwork" pod_security "$(bad 's/^spec:$/&\n  hostNetwork: true/')"
  finds "files without any pod" "no pod" pod_security "$(bad 's/kind: Pod$/kind: Secret/')"
}

self_test_charts() {
  local copy=$work/charts chart=$work/charts/bellwether
  fresh_charts "$copy"
  passes "the charts" lint_charts_in "$copy"
  passes "the charts' READMEs" check_readmes charts
  passes "the charts' schemas" check_schemas_closed charts

  change "$chart/Chart.yaml" 's/^version: .*/version: one/'
  finds "a chart that helm lint refuses" "version" lint_charts_in "$copy"
  fresh_charts "$copy"
  # A key appended to one of the files would not do: Helm reads no further than an `{}` there.
  printf 'noSuchValue: 1\n' >"$chart/ci/unknown-values.yaml"
  finds "a CI values file with an unknown key" "noSuchValue" lint_charts_in "$copy"
  finds "a CI values file that does not render" "noSuchValue" render "$work/bad-rendered" "$chart"
  fresh_charts "$copy"
  change "$chart/values.schema.json" '0,/"additionalProperties": false/ s//"additionalProperties": true/'
  finds "a schema with a hole" "lets unknown keys pass" check_schemas_closed "$copy"
  rm "$chart/values.schema.json"
  finds "a chart without a schema" "accepts the unknown value" refuses_unknown "$chart" noSuchValue
  fresh_charts "$copy"
  echo drifted >>"$chart/README.md"
  finds "a drifted README" "^-drifted" check_readmes "$copy"
  fresh_charts "$copy"
  change "$chart/values.yaml" '0,/^# -- /s//# -- Not in the README: /'
  finds "a value whose description is not in the README" "Not in the README" check_readmes "$copy"
  mkdir -p "$work"/differ/{helm-3,helm-4}
  echo a >"$work/differ/helm-3/a"
  finds "a difference between the Helms" "Only in" same_manifests "$work"/differ/helm-{3,4}
}

self_test_rest() {
  printf 'groups: [{name: a, rules: [{alert: A, expr: "sum("}]}]\n' >"$work/rules.yaml"
  finds "a rule that cannot be read" "parse error" promtool_check "$work/rules.yaml"
  printf 'groups: [{name: a, rules: [{record: a, expr: b}, {record: a, expr: b}]}]\n' >"$work/rules.yaml"
  finds "a rule that is there twice" "duplicate" promtool_check "$work/rules.yaml"

  sed '0,/^COPY/s//ADD/' Dockerfile >"$work/Dockerfile"
  passes "the Dockerfile" hadolint Dockerfile
  finds "ADD in the Dockerfile" "DL3020" hadolint "$work/Dockerfile"

  printf 'a: 1\na: 2\n' >"$work/twice.yaml"
  finds "YAML with a key twice" "key-duplicates" yamllint --strict --config-file .yamllint "$work/twice.yaml"
  self_test_drift
}

# In a copy of the repository, because that is what the script looks at.
self_test_drift() {
  local copy=$work/copy file
  mkdir "$copy"
  files . | tar --create --files-from - | tar --extract --directory "$copy"
  passes "manifests as rendered" "$copy/scripts/render-manifests.sh" --check
  file=$(cd "$copy" && grep -lr '^# Rendered from' manifests | sort | head -n 1)
  echo 'drifted: true' >>"$copy/${file:-manifests/none.yaml}"
  finds "a drifted manifest" "drifted" "$copy/scripts/render-manifests.sh" --check
}

# --- the command line --------------------------------------------------------------------------------------------------

all_checks() {
  check "charts: their dependencies" fresh_charts "$work/charts"
  check "charts: helm lint, Helm 3 and 4" lint_charts_in "$work/charts"
  check "charts: every CI values file renders" check_rendering
  check "charts: Helm 3 and 4 render the same" same_manifests "$work"/rendered/helm-{3,4}
  check "charts: the schemas of values are closed" check_schemas_closed charts
  check "charts: unknown values are refused" check_unknown_values_refused
  check "charts: READMEs are up to date" check_readmes charts
  check "charts: shapes, messages, and what stands in two places" env HELM="${helms[*]}" charts/check.sh
  check "rendered: valid in Kubernetes ${kubernetes[*]}" check_rendered_valid
  check "rendered: kube-score" score "$work/rendered/helm-4/${kubernetes[-1]}"/bellwether-*.yaml
  check "rendered: the restricted Pod Security Standard" pod_security "$work"/rendered/helm-4/*/*.yaml
  check "rendered: rules" check_rendered_rules
  check "manifests: as rendered from the chart" scripts/render-manifests.sh --check
  check "manifests: valid" check_manifests
  check "manifests: kube-score" score "$work"/manifests/*.yaml
  check "manifests: the restricted Pod Security Standard" pod_security "$work"/manifests/*.yaml
  check "exceptions are still needed" check_exceptions_needed
  check "rules and their tests" scripts/check-rules.sh
  check "metrics, rules, dashboard and pages agree" scripts/check-observability.sh
  check "Dockerfile" hadolint Dockerfile
  verdict "charts and manifests passed"
}

self_test() {
  self_test_manifests
  self_test_charts
  self_test_rest
  check "the tests of the rules bite" scripts/check-rules.sh --self-test
  check "the check that metrics, rules, dashboard and pages agree bites" scripts/check-observability.sh --self-test
  verdict "every check found what was bad"
}

write() {
  charts/check.sh --write-docs
  scripts/render-manifests.sh
}

for tool in helm-3 helm-4 kubectl lint-python kube-score pod-security promtool helm-docs hadolint yamllint; do
  command -v "$tool" >/dev/null || {
    say "scripts/lint-charts.sh: no $tool: run \`make lint\`, or scripts/tools.sh with helm kubectl lint -- $0 $*"
    exit 1
  }
done
mapfile -t exceptions < <(grep -vE '^(#|$)' scripts/lint-charts.exceptions)
: >"$work/exceptions-used"
case ${1:-} in
  '') all_checks ;;
  --self-test) self_test ;;
  --write) write ;;
  *)
    say "usage: scripts/lint-charts.sh [--self-test | --write]"
    exit 1
    ;;
esac
