{{/*
Every template takes one dict:
  root    the chart's own `$`
  config  the values of this library: .Values.bellwether with `alias: bellwether`
  name    optional: what objects are named after, default <release>-<chart>
  labels  optional, a dict: labels of the objects, default the recommended ones
  hostNetwork  optional: true where the pod uses the node's network
*/}}

{{/* The version of the sidecar these templates were written for. The charts' appVersion; a check compares them. */}}
{{- define "bellwether.appVersion" -}}
0.1.0
{{- end }}

{{/* 52 is what a StatefulSet's name may have: its pods carry it, with a hash behind, as a label of 63. */}}
{{- define "bellwether.name" -}}
{{- if .name -}}
  {{- .name -}}
{{- else if contains .root.Chart.Name .root.Release.Name -}}
  {{- .root.Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
  {{- printf "%s-%s" .root.Release.Name .root.Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "bellwether.serviceAccountName" -}}
{{- .config.serviceAccount.name | default (include "bellwether.name" .) -}}
{{- end }}

{{/* Labels of the objects that this library makes. */}}
{{- define "bellwether.labels" -}}
{{- if .labels -}}
{{ toYaml .labels }}
{{- else -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ .root.Chart.Name | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .root.Chart.AppVersion }}
app.kubernetes.io/version: {{ . | quote }}
{{- end }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}
{{- end }}

{{- define "bellwether.image" -}}
{{- $image := .config.image -}}
{{- $repository := ternary $image.repository (printf "%s/%s" $image.registry $image.repository) (empty $image.registry) -}}
{{- if $image.digest -}}
  {{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
  {{- printf "%s:%s" $repository ($image.tag | default (include "bellwether.appVersion" .)) -}}
{{- end -}}
{{- end }}

{{/* What each preset of `bellwether run --label-preset` means. "" as the follower's value: followers carry no label. */}}
{{- define "bellwether.presets" -}}
bellwether: {key: bellwether.dev/role, leader: leader, follower: follower}
leader-labeler: {key: is-leader, leader: "true", follower: "false"}
leader-elector: {key: role, leader: leader, follower: follower}
patroni: {key: role, leader: primary, follower: replica}
spilo: {key: spilo-role, leader: master, follower: replica}
vault: {key: vault-active, leader: "true", follower: "false"}
{{- end }}

{{/*
Whether the cluster has a kind. Helm knows the kinds only when it talks to one (then it knows the Pod, too); `helm template`
goes by the version, in which the kind became a part of Kubernetes. Takes: root, kind, since.
*/}}
{{- define "bellwether.has" -}}
{{- $versions := .root.Capabilities.APIVersions -}}
{{- if or ($versions.Has .kind) (and (not ($versions.Has "v1/Pod")) (semverCompare (printf ">=%s-0" .since) .root.Capabilities.KubeVersion.Version)) -}}
true
{{- end -}}
{{- end }}
