{{/* Everything that this library makes besides the pod, as one stream of documents. */}}
{{- define "bellwether.objects" -}}
{{- range $template := list "serviceAccount" "role" "roleBinding" "admissionPolicy" "leaderService" "podMonitor" -}}
{{- with include (printf "bellwether.%s" $template) $ }}
---
{{ . }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "bellwether.serviceAccount" -}}
{{- if .config.serviceAccount.create -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "bellwether.serviceAccountName" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "bellwether.labels" . | nindent 4 }}
  {{- with .config.serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end -}}
{{- end }}

{{- define "bellwether.role" -}}
{{- if and .config.label.enabled .config.rbac.create -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ include "bellwether.name" . }}-pod-label
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "bellwether.labels" . | nindent 4 }}
rules:
  # Its own pod, and the pods of the election that wear the leader's label. Patch alone, without update, create or delete, and
  # no sub-resources: `pods` does not include pods/exec, pods/ephemeralcontainers, pods/status or pods/resize.
  - apiGroups: [""]
    resources: [pods]
    verbs: [get, list, watch, patch]
  - apiGroups: [events.k8s.io]
    resources: [events]
    verbs: [create]
{{- end -}}
{{- end }}

{{- define "bellwether.roleBinding" -}}
{{- if and .config.label.enabled .config.rbac.create -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ include "bellwether.name" . }}-pod-label
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "bellwether.labels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ include "bellwether.name" . }}-pod-label
subjects:
  - kind: ServiceAccount
    name: {{ include "bellwether.serviceAccountName" . }}
    namespace: {{ .root.Release.Namespace }}
{{- end -}}
{{- end }}
