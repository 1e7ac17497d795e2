{{- define "bellwether.podMonitor" -}}
{{- $monitor := .config.metrics.podMonitor -}}
{{- if $monitor.enabled -}}
{{- $settings := include "bellwether.settings" . | fromYaml -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ $settings.name }}
  namespace: {{ $settings.namespace }}
  labels:
    {{- include "bellwether.labels" . | nindent 4 }}
    {{- with $monitor.labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $monitor.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  selector:
    matchLabels:
      {{ $settings.electionKey }}: {{ $settings.election | quote }}
  namespaceSelector:
    matchNames: [{{ $settings.namespace }}]
  podMetricsEndpoints:
    - port: telemetry
      path: /metrics
      {{- with $monitor.interval }}
      interval: {{ . }}
      {{- end }}
      {{- with $monitor.scrapeTimeout }}
      scrapeTimeout: {{ . }}
      {{- end }}
      {{- with $monitor.relabelings }}
      relabelings:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $monitor.metricRelabelings }}
      metricRelabelings:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}
{{- end }}
