{{- define "bellwether.leaderServiceName" -}}
{{- .config.service.leader.name | default (printf "%s-leader" (include "bellwether.name" . | trunc 56 | trimSuffix "-")) -}}
{{- end }}

{{/* Empty without ports, and where pods are not labelled. */}}
{{- define "bellwether.leaderService" -}}
{{- $service := .config.service.leader -}}
{{- if and .config.label.enabled $service.enabled $service.ports -}}
{{- $settings := include "bellwether.settings" . | fromYaml -}}
# Where the leader is, as far as the label knows: routing, not a fence.
#  * A lost node cannot take the label off its pod. The next leader does, as soon as it leads: after the lease (15 s). Where it
#    cannot, and with nobody to lead, the endpoint stays until Kubernetes gives the node up: 40 to 50 s.
#  * Established connections are not cut when the label moves on.
#  * While nobody leads nobody carries the label: connections are refused, or time out.
# So the application behind it asks its own sidecar, and checks the term where it matters.
apiVersion: v1
kind: Service
metadata:
  name: {{ include "bellwether.leaderServiceName" . }}
  namespace: {{ $settings.namespace }}
  labels:
    {{- include "bellwether.labels" . | nindent 4 }}
    {{- with $service.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $service.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ $service.type }}
  selector:
    {{ $settings.electionKey }}: {{ $settings.election | quote }}
    {{ $settings.key }}: {{ $settings.leader | quote }}
  ports:
    {{- toYaml $service.ports | nindent 4 }}
  {{- with $service.extraSpec }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
{{- end }}
