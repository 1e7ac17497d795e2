{{/* Labels of the pod template: which election it belongs to. The role comes from the sidecar. */}}
{{- define "bellwether.podLabels" -}}
{{- $settings := include "bellwether.settings" . | fromYaml -}}
{{ $settings.electionKey }}: {{ $settings.election | quote }}
{{- end }}

{{/* Annotations of the pod template; may be empty. */}}
{{- define "bellwether.podAnnotations" -}}
{{- if .config.metrics.scrapeAnnotations -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ int .config.telemetry.port | quote }}
prometheus.io/path: /metrics
{{- end -}}
{{- end }}

{{/* Fields of the pod's spec. Whoever needs another value for one of them writes them by hand, from the list in the README. */}}
{{- define "bellwether.podSpec" -}}
{{- $settings := include "bellwether.settings" . | fromYaml -}}
serviceAccountName: {{ $settings.serviceAccount }}
# The token is mounted into the sidecar by a volume of its own, and into nothing else.
automountServiceAccountToken: false
# A Service called "bellwether" would put variables into the containers that look like the sidecar's own.
enableServiceLinks: false
# {{ $settings.releaseSeconds }} s of these are the sidecar's, to release the lock. {{ if $settings.native -}}
The application ends first, within the rest.
{{- else -}}
Application and sidecar end side by side.
{{- end }}
terminationGracePeriodSeconds: {{ int64 $settings.graceSeconds }}
{{- with .config.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
