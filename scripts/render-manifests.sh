#!/usr/bin/env bash
# Renders the plain manifests of manifests/ from the chart.
#
#   scripts/render-manifests.sh             writes them
#   scripts/render-manifests.sh --check     fails, and shows how, if they are not what it would write
#
# What belongs to Helm or to one namespace is taken out, so that they can be applied to any. Helm 4: BELLWETHER_HELM_BIN
# (a folder, see scripts/tools.sh) or `helm` on the PATH; another version may render the same in another order.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Stands for the namespace while rendering. Every place where it turns up is known, or the rendering fails.
readonly namespace=the-namespace
# What the manifests need at least: native sidecars and admission policies.
readonly kubernetes=1.30.0

die() {
  printf 'scripts/render-manifests.sh: %s\n' "$*" >&2
  exit 1
}

find_helm() {
  local candidate
  for candidate in "${BELLWETHER_HELM_BIN:-/nonexistent}/helm-4" helm-4 helm; do
    if [[ $("$candidate" version --template '{{.Version}}' 2>/dev/null) == v4.* ]]; then
      printf '%s' "$candidate"
      return
    fi
  done
  die "no Helm 4: run it with \`scripts/tools.sh with helm -- …\`"
}

# render RELEASE [ARGUMENT…]: the chart, without what only Helm goes by.
render() {
  local release=$1 log
  shift
  log=$(mktemp)
  "$helm" template "$release" charts/bellwether --namespace "$namespace" --kube-version "$kubernetes" --skip-tests \
    "$@" 2>"$log" |
    sed -E \
      -e '/^# Source: /d' \
      -e '/^ *(helm\.sh\/chart|app\.kubernetes\.io\/managed-by): /d' \
      -e '/^[[:space:]]*$/d' ||
    { cat "$log" >&2 && rm "$log" && die "helm does not render $release"; }
  rm "$log"
}

# Objects without a namespace go to that of `kubectl apply --namespace`. A binding's subjects are then taken to be in the
# binding's own, and a Service's short name is enough inside it.
without_namespace() {
  sed -E -e "/^ *namespace: $namespace\$/d" -e "s/\\.$namespace\\.svc//"
}

# The label by which manifests/policy.yaml knows the service account of an election.
with_account_label() {
  awk -v election="$1" '
    /^---/ { account = 0 }
    /^kind: ServiceAccount$/ { account = 1 }
    { print }
    account && /^  labels:$/ { print "    bellwether.dev/election: " election }'
}

# workload RELEASE [ARGUMENT…]: without the chart's policy, which is for one release.
workload() {
  render "$@" --set admissionPolicy.enabled=false | without_namespace | with_account_label "$1-bellwether"
}

# The chart's policy knows one release's service account and election by name. This one looks both up in the account.
policy() {
  # shellcheck disable=SC2016 # `matches` has a $
  render policy --set fullnameOverride=the-account,election.name=the-election,etcd.trial.enabled=false \
    --set etcd.endpoints='{http://etcd:2379}' --show-only templates/admissionpolicy.yaml | sed -E \
    -e "/^    # Nothing that happens in other namespaces/,/^        kubernetes\\.io\\/metadata\\.name: $namespace\$/d" \
    -e "s/^(.*): the-account\\.$namespace\\.bellwether\\.dev\$/\\1: sidecars.bellwether.dev/" \
    -e "s/'system:serviceaccount:$namespace:the-account'/'system:serviceaccount:' + params.metadata.namespace + ':' + params.metadata.name/" \
    -e "s/'the-election'/params.metadata.labels['bellwether.dev\\/election']/" \
    -e '/message: /s/of the election the-election/of the election that the service account is labelled with/' \
    -e '/message: /s/must say the-election/must say what it says on the service account/' \
    -e '/^  labels:$/d' -e '/^    app\.kubernetes\.io\//d' \
    -e 's/^  failurePolicy: Fail$/&\n  # Each account with this label is looked at as a parameter. The API server has all accounts at hand anyway.\n  paramKind: {apiVersion: v1, kind: ServiceAccount}/' \
    -e 's/^  validationActions: .*$/&\n  # Those of the namespace of the pod that is to be changed.\n  paramRef:\n    selector:\n      matchExpressions:\n        - {key: bellwether.dev\/election, operator: Exists}\n    parameterNotFoundAction: Allow/'
}

# write FILE: the comment above and what comes in, unless a name that stood for something is left.
write() {
  local file=$1 comment=$2 text
  text=$(cat)
  mkdir -p "$(dirname "$folder/$file")"
  if grep -nE "$namespace|the-account|the-election|[Hh]elm" <<<"$text" >&2; then
    die "$file: the lines above should not be there; this script has to learn about them"
  fi
  {
    echo '# yamllint disable-file'
    echo '# Rendered from charts/bellwether by scripts/render-manifests.sh. Do not edit: change the chart, or that script.'
    sed 's/^/# /; s/ $//' <<<"$comment"
    echo "$text"
  } >"$folder/$file"
}

render_all() {
  local mutual_tls=(
    --set "etcd.endpoints={https://etcd-0.etcd:2379,https://etcd-1.etcd:2379,https://etcd-2.etcd:2379}"
    --set etcd.tls.ca.existingSecret=demo-etcd-client
    --set etcd.tls.client.existingSecret=demo-etcd-client
  )
  workload trial | write trial.yaml 'A poller in three replicas with the sidecar, and one etcd member to try things out: no promises.

  kubectl create namespace trial
  kubectl apply --namespace trial --filename manifests/trial.yaml
  kubectl get pods --namespace trial --label-columns bellwether.dev/role --watch

Goes into any namespace, also one that enforces the restricted Pod Security Standard.'
  workload demo "${mutual_tls[@]}" | write external-etcd.yaml 'A poller in three replicas with the sidecar, and an etcd of yours with mutual TLS. Put your containers where the poller is,
and your endpoints into BELLWETHER_ETCD_ENDPOINTS. The certificates come from a Secret:

  kubectl create secret generic demo-etcd-client --namespace NAMESPACE --from-file ca.crt --from-file tls.crt --from-file tls.key
  kubectl apply --namespace NAMESPACE --filename manifests/external-etcd.yaml'
  render example --set fullnameOverride=example --show-only templates/etcd-trial.yaml | without_namespace |
    write examples/etcd/etcd.yaml 'One etcd member to try things out, without promises.'
  policy | write policy.yaml 'What a sidecar may change about pods: the role label and the term annotation of those of its election, and the leader only on
its own pod. Without it the right to patch pods would also mean their images. Once per cluster, by its administrator; needs
Kubernetes 1.30:

  kubectl apply --filename manifests/policy.yaml

It holds for the service accounts that carry the label bellwether.dev/election, in whichever namespace. One account belongs to
one election, and the label says to which: trial.yaml, external-etcd.yaml and the component set it.'
}

helm=$(find_helm)
readonly helm
case ${1:-} in
  '')
    folder=manifests
    render_all
    ;;
  --check)
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    render_all
    differs=
    while IFS= read -r file; do
      diff -u "manifests/$file" "$folder/$file" || differs=yes
    done < <(cd "$folder" && find . -type f)
    [[ -z $differs ]] || die "manifests/ differs from what the chart renders: run scripts/render-manifests.sh"
    ;;
  *) die "usage: scripts/render-manifests.sh [--check]" ;;
esac
