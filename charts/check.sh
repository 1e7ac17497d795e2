#!/usr/bin/env bash
# Checks the charts: lint, every file in ci/ for several versions of Kubernetes, the library's example, the messages for values
# that do not go together, and that what stands in two places is the same in both.
#
#   charts/check.sh              all of it; the exit code is 1 if anything was found
#   charts/check.sh --write-docs README.md of the charts anew, from their values.yaml
#
# HELM: the helms to check with, separated by blanks [default: helm]. KUBERNETES_VALIDATE: the validator; left out where there is
# none, and said so. HELM_DOCS: helm-docs, likewise. PYTHON: a python3 with PyYAML [default: python3].
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

read -ra helms <<<"${HELM:-helm}"
validate=${KUBERNETES_VALIDATE:-$(command -v kubernetes-validate || true)}
helm_docs=${HELM_DOCS:-$(command -v helm-docs || true)}
python=${PYTHON:-python3}
# From the oldest that Chart.yaml allows to the newest that the validator knows.
versions=(1.25 1.26 1.27 1.28 1.29 1.30 1.31 1.32 1.33 1.34 1.35 1.36 1.37)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
found=0

complain() {
  printf 'FOUND: %s\n' "$1"
  if [[ -n ${2:-} ]]; then printf '  %s\n' "${2//$'\n'/$'\n'  }"; fi
  found=1
}

# Helm says on stderr that it follows the symbolic link, each time.
without_links() { grep -v 'found symbolic link' || true; }

lint() {
  local helm=$1 chart out
  for chart in bellwether bellwether-lib "$scratch/shop"; do
    out=$("$helm" lint --strict --kube-version 1.36.0 "$chart" 2>&1) || complain "$helm lint $chart" "$(without_links <<<"$out")"
  done
}

# render HELM CHART VERSION [ARGUMENT…]: the manifests on stdout.
render() {
  local helm=$1 chart=$2 version=$3
  shift 3
  "$helm" template demo "$chart" --namespace trial --kube-version "$version.0" "$@" 2>"$scratch/stderr" ||
    { without_links <"$scratch/stderr" >&2 && return 1; }
}

# Every file in ci/ and the example, for every version, into one folder per version.
manifests() {
  local helm=$1 folder=$2 version values name
  for version in "${versions[@]}"; do
    mkdir -p "$folder/$version"
    for values in bellwether/ci/*-values.yaml; do
      name=$(basename "$values" -values.yaml)
      # It asks for a native sidecar, which older versions refuse: see the messages below.
      if [[ $name == everything && $version =~ ^1\.2[567]$ ]]; then continue; fi
      render "$helm" bellwether "$version" -f "$values" >"$folder/$version/$name.yaml" || complain "$helm template $name for $version"
    done
    render "$helm" "$scratch/shop" "$version" >"$folder/$version/shop.yaml" ||
      complain "$helm template of the library's example for $version"
  done
}

# Strictly: fields that a version does not know are errors, and kinds that it does not have are, too, though the validator only
# warns. Those of the Prometheus operator belong to no version.
validate_manifests() {
  local version out
  if [[ -z $validate ]]; then
    printf 'kubernetes-validate is missing: manifests are rendered, not validated\n'
    return
  fi
  for version in "${versions[@]}"; do
    out=$("$validate" --strict -k "$version" "$scratch/rendered/$version"/*.yaml 2>&1 |
      grep -v -e '^INFO' -e 'monitoring.coreos.com/v1' || true)
    if [[ -n $out ]]; then complain "manifests for Kubernetes $version" "$out"; fi
  done
}

# shape FILE PATTERN COUNT: so many lines of the rendered file match.
shape() {
  local count
  count=$(grep -cE -- "$2" "$scratch/rendered/$1.yaml" || true)
  if [[ $count != "$3" ]]; then complain "$1: $count lines with $2, not $3"; fi
}

shapes() {
  shape 1.28/bare 'restartPolicy: Always' 0
  shape 1.29/bare 'restartPolicy: Always' 1
  shape 1.29/bare 'kind: ValidatingAdmissionPolicy$' 0
  shape 1.30/bare 'kind: ValidatingAdmissionPolicy$' 1
  shape 1.36/bare 'name: bellwether-token$' 2
  shape 1.36/bare 'serviceAccountToken:' 1
  shape 1.36/label-off 'serviceAccountToken|kind: Role|kind: ValidatingAdmissionPolicy|-leader$' 0
  shape 1.36/shop 'kind: (ServiceAccount|Role|RoleBinding|Service|ValidatingAdmissionPolicy|ValidatingAdmissionPolicyBinding)$' 8
  # A mount and its volume; in memory.
  shape 1.36/bare 'name: bellwether-state$' 2
  shape 1.36/bare 'emptyDir: \{medium: Memory, sizeLimit: 1Mi\}' 1
  shape 1.36/label-off 'bellwether-state|STATE_DIR|volumeMounts|volumes:' 0
  shape 1.36/bare 'NEVER_LEAD|APP_HEALTH' 0
  shape 1.36/everything 'name: BELLWETHER_APP_HEALTH' 6
  # One container's security context does not run over into another's.
  shape 1.36/everything 'runAsUser: 1001' 1
}

# refused WORDS ARGUMENT…: these values are refused, in these words.
refused() {
  local helm=$1 words=$2 out
  shift 2
  if out=$("$helm" template demo bellwether --kube-version 1.27.0 "$@" 2>&1); then
    complain "$helm takes $*"
  elif ! grep -qF -- "$words" <<<"$out"; then
    complain "$helm refuses $* without the words: $words" "$(without_links <<<"$out")"
  fi
}

messages() {
  local helm=$1 tls='etcd.endpoints={https://a:2379}' plain='etcd.endpoints={http://a:2379}'
  local ca=(--set "$tls" --set etcd.tls.ca.existingSecret=s)
  refused "$helm" "additional properties 'relicas' not allowed" --set relicas=3
  # A key without a value takes the default away; without replicas it would scale to zero.
  refused "$helm" "missing property 'replicas'" --set replicas=null
  refused "$helm" "additional properties 'leaseTTL' not allowed" --set timings.leaseTTL=15s
  refused "$helm" "does not match pattern '^([0-9]+(h|m|s|ms))*$'" --set timings.leaseTtl=15sec
  refused "$helm" "value must be one of 'bellwether', 'leader-labeler'" --set label.preset=raft
  refused "$helm" "write the largest unit first" --set timings.leaseTtl=1s1m
  refused "$helm" "whole seconds from 2s to 1h" --set timings.leaseTtl=1s
  refused "$helm" "whole seconds from 2s to 1h" --set timings.leaseTtl=2s500ms
  refused "$helm" "timings.safetyMargin is 5ms: at least 10ms" --set timings.safetyMargin=5ms
  refused "$helm" "keepaliveInterval 5s + 2 × attemptTimeout 5s + safetyMargin 3s = 18s > 15s" --set timings.attemptTimeout=5s
  refused "$helm" "timings.answerValidity 20s > drainTimeout 10s" --set timings.answerValidity=20s
  refused "$helm" "terminationGracePeriodSeconds 14 is too short to release the lock: timings.drainTimeout 10s + 5s = 15s" \
    --set terminationGracePeriodSeconds=14
  refused "$helm" "etcd.endpoints is empty" --set etcd.trial.enabled=false
  refused "$helm" "carries credentials" --set 'etcd.endpoints={http://me:secret@a:2379}'
  refused "$helm" "mixes http and https" --set 'etcd.endpoints={https://a:1,http://b:1}'
  refused "$helm" "lists a member twice" --set 'etcd.endpoints={http://a:1,http://a:1}'
  refused "$helm" "etcd.tls.ca names nothing" --set "$tls"
  refused "$helm" "etcd.tls.ca names more than one" "${ca[@]}" --set etcd.tls.ca.file=/ca.pem
  refused "$helm" "etcd.tls is set, but etcd.endpoints are http" --set "$plain" --set etcd.tls.ca.existingSecret=s
  refused "$helm" "certFile and keyFile go together" "${ca[@]}" --set etcd.tls.client.certFile=/c.pem
  refused "$helm" "names both existingSecret and certFile" "${ca[@]}" --set etcd.tls.client.existingSecret=s \
    --set etcd.tls.client.certFile=/c.pem --set etcd.tls.client.keyFile=/k.pem
  refused "$helm" "etcd.auth.user and passwordFile go together" --set "$plain" --set etcd.auth.user=me
  refused "$helm" "etcd.auth names both" --set "$plain" --set etcd.auth.existingSecret=s --set etcd.auth.user=me \
    --set etcd.auth.passwordFile=/p
  refused "$helm" "both come to \"leader\"" --set label.follower=leader
  refused "$helm" "the role and the election need a label each" --set label.key=bellwether.dev/election
  refused "$helm" "serviceAccount.name is empty" --set serviceAccount.create=false
  refused "$helm" "serviceAccount.name is \"default\"" --set serviceAccount.create=false --set serviceAccount.name=default
  refused "$helm" "has no native sidecars" --set sidecar.mode=native
  refused "$helm" "http.listen and telemetry.port are both on port 4040" --set telemetry.port=4040
  refused "$helm" "would restart the sidecar for ever" --set telemetry.host=127.0.0.1
  refused "$helm" "local API both listen on port 4040" --set-json 'containers=[{"name":"a","image":"a","ports":[{"containerPort":4040}]}]'
  refused "$helm" "sidecar.extraEnv sets BELLWETHER_ELECTION" --set 'sidecar.extraEnv[0].name=BELLWETHER_ELECTION'
  refused "$helm" "appHealth.target is empty, and nobody asks" --set appHealth.interval=1s
  refused "$helm" "election.neverLead: who never leads has no health that matters" --set election.neverLead=true \
    --set appHealth.target=tcp://localhost:80
  refused "$helm" "does not match pattern '^((http|tcp)://.+" --set appHealth.target=https://localhost
  refused "$helm" "containers is empty" --set-json 'containers=[]'
  refused "$helm" "the sidecar's name" --set sidecar.name=poller
  refused "$helm" "both listen on port 8080" --set telemetry.port=8080
  refused "$helm" "which is the name of one of the sidecar's" --set 'volumes[0].name=bellwether-etcd'
  refused "$helm" "a Deployment has none" --set 'workload.volumeClaimTemplates[0].a=b'
  refused "$helm" "only a StatefulSet knows" --set workload.strategy.type=OnDelete
  refused "$helm" "only a Deployment knows" --set workload.kind=StatefulSet --set workload.strategy.type=Recreate
  refused "$helm" "no node could ever be drained" --set podDisruptionBudget.minAvailable=3
  refused "$helm" "no node could ever be drained" --set-string podDisruptionBudget.minAvailable=75%
  refused "$helm" "no node could ever be drained" --set podDisruptionBudget.maxUnavailable=0
  refused "$helm" "has no effect with hostNetwork" --set networkPolicy.enabled=true --set hostNetwork=true
  refused "$helm" "which the chart or the sidecar sets" --set 'podLabels.bellwether\.dev/role=leader'
  refused "$helm" "which the sidecar sets" --set-string 'podAnnotations.bellwether\.dev/term=1'
  refused "$helm" "extraPodSpec.hostNetwork is set by another value" --set extraPodSpec.hostNetwork=true
  refused "$helm" "no container has a port called \"web\"" --set 'service.leader.ports[0].port=80' \
    --set 'service.leader.ports[0].targetPort=web'
  refused "$helm" "service.headless.enabled is false" --set workload.kind=StatefulSet --set service.headless.enabled=false
  # All at once.
  refused "$helm" "no node could ever be drained" --set podDisruptionBudget.minAvailable=3 --set sidecar.mode=native
  refused "$helm" "has no native sidecars" --set podDisruptionBudget.minAvailable=3 --set sidecar.mode=native
}

# The library's values, with their schema, stand a second time in the application chart. Descriptions may say more there.
same_twice() {
  "$python" - <<'PYTHON' || complain "bellwether-lib and bellwether have come apart"
import json
import re
import sys

import yaml


def load(path):
    with open(path, encoding="utf-8") as file:
        return yaml.safe_load(file)


faults = []


def compare(library, application, path, skip):
    for key, value in library.items():
        here = f"{path}.{key}"
        if key in skip:
            continue
        if not isinstance(application, dict) or key not in application:
            faults.append(f"{here} is missing")
        elif isinstance(value, dict):
            compare(value, application[key], here, skip)
        elif value != application[key]:
            faults.append(f"{here}: {value!r} and {application[key]!r}")


def paths(schema, values, path):
    """Every value has a type, and every type a value."""
    properties = schema.get("properties", {})
    if schema.get("additionalProperties") is not False:
        return
    for key in set(properties) ^ set(values or {}):
        if key not in ("global", "bellwether-lib"):
            faults.append(f"{path}.{key} is in only one of values.yaml and values.schema.json")
    for key in set(properties) & set(values or {}):
        if isinstance(values[key], dict) and values[key]:
            paths(properties[key], values[key], f"{path}.{key}")


def patterns(schema, path):
    """A value that both YAML and JSON know, and Helm's two validators alike: no look-around."""
    for key, value in schema.items():
        if key == "pattern" and isinstance(value, str):
            re.compile(value)
        elif isinstance(value, dict):
            patterns(value, f"{path}.{key}")


charts = {name: load(f"{name}/values.yaml") for name in ("bellwether-lib", "bellwether")}
schemas = {name: json.load(open(f"{name}/values.schema.json", encoding="utf-8")) for name in charts}
compare(charts["bellwether-lib"], charts["bellwether"], "values", ())
compare(schemas["bellwether-lib"]["properties"], schemas["bellwether"]["properties"], "schema", ("description",))
for name in charts:
    paths(schemas[name], charts[name], name)
    patterns(schemas[name], name)

metadata = {name: load(f"{name}/Chart.yaml") for name in charts}
with open("bellwether-lib/templates/_names.tpl", encoding="utf-8") as file:
    built_for = re.search(r'define "bellwether.appVersion" -}}\n(.*)\n', file.read()).group(1)
versions = {built_for, *(chart["appVersion"] for chart in metadata.values())}
if len(versions) != 1:
    faults.append(f"appVersion: {sorted(versions)}")
if metadata["bellwether"]["dependencies"][0]["version"] != metadata["bellwether-lib"]["version"]:
    faults.append("bellwether depends on another version of bellwether-lib")

print(*faults, sep="\n", end="\n" if faults else "")
sys.exit(bool(faults))
PYTHON
}

# Writes README.md of both charts, from README.md.gotmpl and the comments in values.yaml, into a copy of the charts.
generate_documentation() {
  mkdir "$scratch/docs"
  cp -R bellwether bellwether-lib "$scratch/docs/"
  # Charts as well: helm-docs would document them, too.
  rm -rf "$scratch/docs/bellwether/charts" "$scratch/docs/bellwether-lib/examples"
  "$helm_docs" --chart-search-root "$scratch/docs" --template-files README.md.gotmpl --sort-values-order file --log-level error
}

documentation() {
  local chart
  if [[ -z $helm_docs ]]; then
    printf 'helm-docs is missing: README.md of the charts is not compared with values.yaml\n'
    return
  fi
  generate_documentation
  for chart in bellwether bellwether-lib; do
    diff -u "$chart/README.md" "$scratch/docs/$chart/README.md" >"$scratch/diff" ||
      complain "$chart/README.md is old: charts/check.sh --write-docs writes it anew" "$(<"$scratch/diff")"
  done
}

if [[ ${1:-} == --write-docs ]]; then
  generate_documentation
  for chart in bellwether bellwether-lib; do cp "$scratch/docs/$chart/README.md" "$chart/README.md"; done
  exit
fi

# A user's chart gets the library as an archive: so does the example.
cp -R bellwether-lib/examples/shop "$scratch/shop"
sed -i "s#file://../..#file://$PWD/bellwether-lib#" "$scratch/shop/Chart.yaml"
for helm in "${helms[@]}"; do
  "$helm" version --short
  rm -rf "$scratch/shop/charts" "$scratch/shop/Chart.lock"
  "$helm" dependency update "$scratch/shop" >"$scratch/update" 2>&1 || complain "$helm dependency update" "$(<"$scratch/update")"
  lint "$helm"
  if [[ $helm == "${helms[0]}" ]]; then
    manifests "$helm" "$scratch/rendered"
  else
    manifests "$helm" "$scratch/again"
    # They follow the symbolic link in another order; blanks aside, the text is the same.
    diff -rZB "$scratch/rendered" "$scratch/again" >"$scratch/diff" || complain "$helm renders otherwise than ${helms[0]}" "$(<"$scratch/diff")"
  fi
  messages "$helm"
done
shapes
validate_manifests
same_twice
documentation
if [[ $found -ne 0 ]]; then exit 1; fi
printf 'charts: nothing found\n'
