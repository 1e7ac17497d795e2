{{- define "bellwether.app.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
  {{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
  {{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
  {{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* A name derived from the full name: 52 characters at most, whatever the suffix. Takes a list of the root and the suffix. */}}
{{- define "bellwether.app.derivedName" -}}
{{- $suffix := printf "-%s" (index . 1) -}}
{{- printf "%s%s" (include "bellwether.app.fullname" (index . 0) | trunc (sub 52 (len $suffix) | int) | trimSuffix "-") $suffix -}}
{{- end }}

{{- define "bellwether.app.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Of one kind of pod. Takes a list of the root and the component: replica, etcd-trial or test. */}}
{{- define "bellwether.app.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Labels of one kind of pod and of what belongs to it. Takes the same. */}}
{{- define "bellwether.app.componentLabels" -}}
{{ include "bellwether.app.labels" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/*
What the library's templates take, but for the root: {{- $bellwether := set (include "bellwether.app.arguments" . | fromYaml) "root" $ }}
The values, with the trial member's endpoint and the ports of the leader's Service filled in.
*/}}
{{- define "bellwether.app.arguments" -}}
{{- $config := deepCopy .Values.AsMap -}}
{{- if eq (include "bellwether.app.onTrial" .) "true" -}}
  {{- $endpoint := printf "http://%s.%s.svc:2379" (include "bellwether.app.trialName" .) .Release.Namespace -}}
  {{- $_ := set $config.etcd "endpoints" (list $endpoint) -}}
{{- end -}}
{{- if empty $config.service.leader.ports -}}
  {{- $_ := set $config.service.leader "ports" (include "bellwether.app.servicePorts" . | fromYamlArray) -}}
{{- end -}}
{{- $arguments := dict
  "config" $config
  "name" (include "bellwether.app.fullname" .)
  "labels" (include "bellwether.app.labels" . | fromYaml)
  "hostNetwork" .Values.hostNetwork
-}}
{{- /* Here, because every template that could trip over contradictions comes by. */ -}}
{{- include "bellwether.app.check" (list . (merge (dict "root" .) $arguments)) -}}
{{- toYaml $arguments -}}
{{- end }}

{{- define "bellwether.app.onTrial" -}}
{{- and (empty .Values.etcd.endpoints) .Values.etcd.trial.enabled -}}
{{- end }}

{{- define "bellwether.app.trialName" -}}
{{- include "bellwether.app.derivedName" (list . "etcd-trial") -}}
{{- end }}

{{/* The TCP ports of the containers, as a Service has them. */}}
{{- define "bellwether.app.servicePorts" -}}
{{- $ports := list -}}
{{- range .Values.containers -}}
  {{- range .ports -}}
    {{- if eq (.protocol | default "TCP") "TCP" -}}
      {{- $name := .name | default (printf "port-%d" (int .containerPort)) -}}
      {{- $ports = append $ports (dict "name" $name "port" (int .containerPort) "targetPort" (.name | default (int .containerPort)) "protocol" "TCP") -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- toYaml $ports -}}
{{- end }}

{{/* Containers of the values, each with a security context. Takes a list of the root and the containers. */}}
{{- define "bellwether.app.containers" -}}
{{- $default := (index . 0).Values.containerSecurityContext -}}
{{- $containers := list -}}
{{- range index . 1 -}}
  {{- $container := deepCopy . -}}
  {{- if not (hasKey $container "securityContext") -}}
    {{- $_ := set $container "securityContext" $default -}}
  {{- end -}}
  {{- $containers = append $containers $container -}}
{{- end -}}
{{- toYaml $containers -}}
{{- end }}

{{/* A constraint that says nothing of which pods gets those of this release; of a Deployment, those of the same revision. */}}
{{- define "bellwether.app.topologySpreadConstraints" -}}
{{- $own := dict "labelSelector" (dict "matchLabels" (include "bellwether.app.selectorLabels" (list . "replica") | fromYaml)) -}}
{{- if and (eq .Values.workload.kind "Deployment") (semverCompare ">=1.27-0" .Capabilities.KubeVersion.Version) -}}
  {{- $_ := set $own "matchLabelKeys" (list "pod-template-hash") -}}
{{- end -}}
{{- $constraints := list -}}
{{- range .Values.topologySpreadConstraints -}}
  {{- if hasKey . "labelSelector" -}}
    {{- $constraints = append $constraints . -}}
  {{- else -}}
    {{- $constraints = append $constraints (merge (deepCopy .) $own) -}}
  {{- end -}}
{{- end -}}
{{- toYaml $constraints -}}
{{- end }}

{{- define "bellwether.app.headlessName" -}}
{{- .Values.service.headless.name | default (include "bellwether.app.derivedName" (list . "pods")) -}}
{{- end }}
