{{/* What does not go together in the values, the library's findings included. Takes a list of the root and the arguments. */}}
{{- define "bellwether.app.check" -}}
{{- $root := index . 0 -}}
{{- $faults := list -}}
{{- range $kind := list "container" "workload" "service" -}}
  {{- $faults = concat $faults (include (printf "bellwether.app.%sFaults" $kind) $root | fromYamlArray) -}}
{{- end -}}
{{- include "bellwether.failOn" (concat $faults (include "bellwether.faults" (index . 1) | fromYamlArray)) -}}
{{- end }}

{{- define "bellwether.app.containerFaults" -}}
{{- $faults := list -}}
{{- if empty .Values.containers -}}
  {{- $faults = append $faults "containers is empty: there is nothing to lead" -}}
{{- end -}}
{{- $names := list .Values.sidecar.name -}}
{{- range concat .Values.initContainers .Values.containers -}}
  {{- if has .name $names -}}
    {{- $faults = append $faults (printf "two containers are called %q%s: give each its own name" .name (eq .name $.Values.sidecar.name | ternary ", the sidecar's name" "")) -}}
  {{- end -}}
  {{- $names = append $names .name -}}
{{- end -}}
{{- $apiPorts := include "bellwether.apiPorts" (dict "config" .Values) | fromYamlArray | toStrings -}}
{{- range .Values.containers -}}
  {{- $container := .name -}}
  {{- range .ports -}}
    {{- if eq (int .containerPort) (int $.Values.telemetry.port) -}}
      {{- $faults = append $faults (printf "container %q and the sidecar's telemetry both listen on port %d: the containers of a pod share one network; change telemetry.port" $container (int .containerPort)) -}}
    {{- end -}}
    {{- if has (int .containerPort | toString) $apiPorts -}}
      {{- $faults = append $faults (printf "container %q and the sidecar's local API both listen on port %d: the containers of a pod share one network; change http.listen, as in [localhost:4400]" $container (int .containerPort)) -}}
    {{- end -}}
    {{- if has .name (list "telemetry" "leader-api") -}}
      {{- $faults = append $faults (printf "container %q calls a port %q, which is the name of one of the sidecar's" $container .name) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range .Values.volumes -}}
  {{- if has .name (list "bellwether-token" "bellwether-etcd" "bellwether-state") -}}
    {{- $faults = append $faults (printf "volumes has %q, which is the name of one of the sidecar's" .name) -}}
  {{- end -}}
{{- end -}}
{{- toYaml $faults -}}
{{- end }}

{{- define "bellwether.app.workloadFaults" -}}
{{- $workload := .Values.workload -}}
{{- $budget := .Values.podDisruptionBudget -}}
{{- $faults := list -}}
{{- if eq $workload.kind "Deployment" -}}
  {{- if $workload.volumeClaimTemplates -}}
    {{- $faults = append $faults "workload.volumeClaimTemplates is set, but a Deployment has none: use workload.kind StatefulSet, or volumes" -}}
  {{- end -}}
  {{- if $workload.persistentVolumeClaimRetentionPolicy -}}
    {{- $faults = append $faults "workload.persistentVolumeClaimRetentionPolicy is set, but a Deployment has none: use workload.kind StatefulSet" -}}
  {{- end -}}
  {{- if eq ($workload.strategy.type | default "") "OnDelete" -}}
    {{- $faults = append $faults "workload.strategy.type is OnDelete, which only a StatefulSet knows: a Deployment has RollingUpdate and Recreate" -}}
  {{- end -}}
{{- else if eq ($workload.strategy.type | default "") "Recreate" -}}
  {{- $faults = append $faults "workload.strategy.type is Recreate, which only a Deployment knows: a StatefulSet has RollingUpdate and OnDelete" -}}
{{- end -}}
{{- /* minAvailable wins, as in the budget itself, where a share is rounded up: 75% of 3 are 3. */ -}}
{{- $replicas := int .Values.replicas -}}
{{- $least := toString $budget.minAvailable -}}
{{- if and $budget.enabled $least -}}
  {{- $needed := int (trimSuffix "%" $least) -}}
  {{- if hasSuffix "%" $least -}}
    {{- $needed = div (add (mul $needed $replicas) 99) 100 | int -}}
  {{- end -}}
  {{- if and $replicas (ge $needed $replicas) -}}
    {{- $faults = append $faults (printf "podDisruptionBudget.minAvailable %s of %d replicas: no node could ever be drained; use fewer, or turn the budget off" $least $replicas) -}}
  {{- end -}}
{{- else if and $budget.enabled (has (toString $budget.maxUnavailable) (list "0" "0%")) -}}
  {{- $faults = append $faults "podDisruptionBudget.maxUnavailable is 0: no node could ever be drained; use 1, or turn the budget off" -}}
{{- end -}}
{{- if and .Values.hostNetwork .Values.networkPolicy.enabled -}}
  {{- $faults = append $faults "networkPolicy.enabled has no effect with hostNetwork, where pods have no network of their own: turn one of them off" -}}
{{- end -}}
{{- $labels := include "bellwether.app.selectorLabels" (list . "replica") | fromYaml -}}
{{- $_ := set $labels .Values.label.electionKey "" -}}
{{- $_ := set $labels (.Values.label.key | default (get (include "bellwether.presets" . | fromYaml) .Values.label.preset).key) "" -}}
{{- range $key, $_ := merge (dict) .Values.podLabels .Values.commonLabels -}}
  {{- if hasKey $labels $key -}}
    {{- $faults = append $faults (printf "podLabels or commonLabels has %q, which the chart or the sidecar sets" $key) -}}
  {{- end -}}
{{- end -}}
{{- if hasKey .Values.podAnnotations .Values.label.termAnnotationKey -}}
  {{- $faults = append $faults (printf "podAnnotations has %q, which the sidecar sets" .Values.label.termAnnotationKey) -}}
{{- end -}}
{{- $own := list "serviceAccountName" "automountServiceAccountToken" "enableServiceLinks" "terminationGracePeriodSeconds" "imagePullSecrets" "securityContext" "hostNetwork" "dnsPolicy" "nodeSelector" "affinity" "tolerations" "topologySpreadConstraints" "priorityClassName" "runtimeClassName" "initContainers" "containers" "volumes" -}}
{{- range $field, $_ := .Values.extraPodSpec -}}
  {{- if has $field $own -}}
    {{- $faults = append $faults (printf "extraPodSpec.%s is set by another value of this chart" $field) -}}
  {{- end -}}
{{- end -}}
{{- toYaml $faults -}}
{{- end }}

{{- define "bellwether.app.serviceFaults" -}}
{{- $faults := list -}}
{{- $names := list -}}
{{- range .Values.containers -}}
  {{- range .ports -}}{{- $names = append $names .name -}}{{- end -}}
{{- end -}}
{{- if .Values.service.leader.enabled -}}
  {{- range .Values.service.leader.ports -}}
    {{- if and (kindIs "string" .targetPort) (not (has .targetPort $names)) -}}
      {{- $faults = append $faults (printf "service.leader.ports: no container has a port called %q, so the Service would lead nowhere" .targetPort) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if and (eq .Values.workload.kind "StatefulSet") (not .Values.service.headless.enabled) (empty .Values.service.headless.name) -}}
  {{- $faults = append $faults "service.headless.enabled is false: name the Service that the StatefulSet's pods are to belong to in service.headless.name" -}}
{{- end -}}
{{- toYaml $faults -}}
{{- end }}
