{{/* The container, as a map: for whoever places it by hand. */}}
{{- define "bellwether.sidecar" -}}
{{- $settings := include "bellwether.settings" . | fromYaml -}}
{{- $sidecar := .config.sidecar -}}
name: {{ $settings.container }}
image: {{ include "bellwether.image" . | quote }}
imagePullPolicy: {{ .config.image.pullPolicy }}
{{- if $settings.native }}
# Keeps running beside the containers: a native sidecar.
restartPolicy: Always
{{- end }}
args:
  - run
  {{- if and $settings.labelled (eq $settings.follower "") }}
  # As a variable an empty value would count as not set.
  - --label-follower=
  {{- end }}
  {{- with $sidecar.extraArgs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
env:
  {{- include "bellwether.ownEnv" (list . $settings) | nindent 2 }}
  {{- with $sidecar.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - name: telemetry
    containerPort: {{ int .config.telemetry.port }}
    protocol: TCP
  {{- if .hostNetwork }}
  # On the node's network the local API takes a port of the node: named so that the scheduler keeps two apart.
  {{- range $index, $port := $settings.apiPorts }}
  - name: {{ printf "leader-api%s" (ternary "" (toString $index) (eq $index 0)) }}
    containerPort: {{ int $port }}
    protocol: TCP
  {{- end }}
  {{- end }}
startupProbe:
  {{- toYaml $sidecar.startupProbe | nindent 2 }}
livenessProbe:
  {{- toYaml $sidecar.livenessProbe | nindent 2 }}
# No readinessProbe, on purpose. Tied to leading, only one pod would ever be ready and every rollout would wait for ever; tied
# to etcd, its outage would take the application off all its Services. Where the leader is, the label tells.
resources:
  {{- toYaml $sidecar.resources | nindent 2 }}
securityContext:
  {{- toYaml $sidecar.securityContext | nindent 2 }}
# A configuration that is refused shows its faults in `kubectl describe pod`.
terminationMessagePolicy: FallbackToLogsOnError
{{- $mounts := concat (include "bellwether.mounts" (list . $settings) | fromYamlArray) $sidecar.extraVolumeMounts }}
{{- with $mounts }}
volumeMounts:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The sidecar as an item of `initContainers`, or nothing where it is a classic container. Goes last in the list. */}}
{{- define "bellwether.initContainers" -}}
{{- if (include "bellwether.settings" . | fromYaml).native -}}
- {{ include "bellwether.sidecar" . | nindent 2 | trim }}
{{- end -}}
{{- end }}

{{/* The sidecar as an item of `containers`, or nothing where it is a native sidecar. Goes after the application. */}}
{{- define "bellwether.containers" -}}
{{- if not (include "bellwether.settings" . | fromYaml).native -}}
- {{ include "bellwether.sidecar" . | nindent 2 | trim }}
{{- end -}}
{{- end }}

{{/* Takes a list of the arguments and the settings. Variables rather than flags: `kubectl exec … -- bellwether status` sees them. */}}
{{- define "bellwether.ownEnv" -}}
{{- $config := (index . 0).config -}}
{{- $settings := index . 1 -}}
{{- $health := $config.appHealth -}}
{{- include "bellwether.downwardEnv" . }}
{{ include "bellwether.etcdEnv" . }}
{{- range $variable, $value := dict
  "KEEPALIVE_INTERVAL" $config.timings.keepaliveInterval
  "LEASE_TTL" $config.timings.leaseTtl
  "ATTEMPT_TIMEOUT" $config.timings.attemptTimeout
  "SAFETY_MARGIN" $config.timings.safetyMargin
  "RECONNECT_WINDOW" $config.timings.reconnectWindow
  "ANSWER_VALIDITY" $config.timings.answerValidity
  "DRAIN_TIMEOUT" $config.timings.drainTimeout
  "EPOCH" (int64 $config.election.epoch | toString | trimPrefix "0")
  "HTTP" (join "," $config.http.listen)
  "ALLOW_REMOTE_RESIGN" (ternary "true" "" $config.http.allowRemoteResign)
  "NEVER_LEAD" (ternary "true" "" $config.election.neverLead)
  "APP_HEALTH" $health.target
  "APP_HEALTH_INTERVAL" $health.interval
  "APP_HEALTH_TIMEOUT" $health.timeout
  "APP_HEALTH_FAILURES" (ternary (int $health.failures | toString) "" (ne $health.target ""))
  "APP_HEALTH_SUCCESSES" (ternary (int $health.successes | toString) "" (ne $health.target ""))
  "APP_HEALTH_START_GRACE" $health.startGrace
  "STATE_DIR" (ternary (include "bellwether.stateDir" .) "" $config.stateDir.enabled)
}}
{{- if $value }}
- name: BELLWETHER_{{ $variable }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
- name: BELLWETHER_TELEMETRY
  value: {{ printf "%s:%d" $config.telemetry.host (int $config.telemetry.port) | quote }}
- name: BELLWETHER_LOG_FORMAT
  value: {{ $config.log.format }}
- name: BELLWETHER_LOG_LEVEL
  value: {{ $config.log.level }}
- name: BELLWETHER_POD_LABEL
  value: {{ ternary "on" "off" $settings.labelled | quote }}
{{- if $settings.labelled }}
# The preset is written out, so that the label, the Service that selects it and the policy cannot come apart.
- name: BELLWETHER_LABEL_KEY
  value: {{ $settings.key }}
- name: BELLWETHER_LABEL_LEADER
  value: {{ $settings.leader | quote }}
{{- if $settings.follower }}
- name: BELLWETHER_LABEL_FOLLOWER
  value: {{ $settings.follower | quote }}
{{- end }}
- name: BELLWETHER_ELECTION_LABEL_KEY
  value: {{ $settings.electionKey }}
- name: BELLWETHER_TERM_ANNOTATION_KEY
  value: {{ $settings.termKey }}
{{- end }}
{{- end }}

{{/* The pod's name and namespace. The identity is the pod's name also where the host name is another: on the node's network. */}}
{{- define "bellwether.downwardEnv" -}}
- name: BELLWETHER_IDENTITY
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: BELLWETHER_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: BELLWETHER_POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- end }}

{{/* Which lock, and how to reach etcd: what `bellwether run` and `bellwether status` have in common. */}}
{{- define "bellwether.etcdEnv" -}}
{{- $config := (index . 0).config -}}
{{- $settings := index . 1 -}}
{{- $files := "/etc/bellwether/etcd" -}}
{{- $tls := $config.etcd.tls -}}
{{- $auth := $config.etcd.auth -}}
- name: BELLWETHER_ELECTION
  value: {{ $settings.election | quote }}
- name: BELLWETHER_NAMESPACE
{{- if $config.election.namespace }}
  value: {{ $config.election.namespace | quote }}
{{- else }}
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- end }}
{{- with $config.election.lockKey }}
- name: BELLWETHER_LOCK_KEY
  value: {{ . | quote }}
{{- end }}
- name: BELLWETHER_ETCD_ENDPOINTS
  value: {{ join "," $config.etcd.endpoints | quote }}
{{- if $settings.tls }}
- name: BELLWETHER_ETCD_CA_FILE
  value: {{ $tls.ca.file | default (printf "%s/ca.crt" $files) | quote }}
{{- if or $tls.client.existingSecret $tls.client.certFile }}
- name: BELLWETHER_ETCD_CERT_FILE
  value: {{ $tls.client.certFile | default (printf "%s/tls.crt" $files) | quote }}
- name: BELLWETHER_ETCD_KEY_FILE
  value: {{ $tls.client.keyFile | default (printf "%s/tls.key" $files) | quote }}
{{- end }}
{{- with $tls.serverName }}
- name: BELLWETHER_ETCD_SERVER_NAME
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- if $auth.existingSecret }}
- name: BELLWETHER_ETCD_USER
  valueFrom: {secretKeyRef: {name: {{ $auth.existingSecret | quote }}, key: {{ $auth.userKey | quote }}}}
- name: BELLWETHER_ETCD_PASSWORD_FILE
  value: {{ $files }}/password
{{- else if $auth.user }}
- name: BELLWETHER_ETCD_USER
  value: {{ $auth.user | quote }}
- name: BELLWETHER_ETCD_PASSWORD_FILE
  value: {{ $auth.passwordFile | quote }}
{{- end }}
{{- end }}
