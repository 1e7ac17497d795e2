{{/* "1m30s" as 90000. Takes: text, default (milliseconds; for an empty text). */}}
{{- define "bellwether.milliseconds" -}}
{{- if empty .text -}}
  {{- .default -}}
{{- else -}}
  {{- $units := dict "h" 3600000 "m" 60000 "s" 1000 "ms" 1 -}}
  {{- $total := int64 0 -}}
  {{- range regexFindAll "[0-9]+(ms|h|m|s)" .text -1 -}}
    {{- $number := regexFind "^[0-9]+" . -}}
    {{- $total = add $total (mul (int64 $number) (int64 (get $units (trimPrefix $number .)))) -}}
  {{- end -}}
  {{- $total -}}
{{- end -}}
{{- end }}

{{/* 2500 as "2s500ms", the way the sidecar writes it. */}}
{{- define "bellwether.span" -}}
{{- $ms := int64 . -}}
{{- $seconds := div $ms 1000 -}}
{{- $rest := mod $ms 1000 -}}
{{- if or $seconds (not $rest) }}{{ $seconds }}s{{ end }}{{ if $rest }}{{ $rest }}ms{{ end -}}
{{- end }}

{{/* All timings in milliseconds, defaults filled in as the sidecar does (src/election/timings.rs). Takes the values' `timings`. */}}
{{- define "bellwether.timings" -}}
{{- $ttl := include "bellwether.milliseconds" (dict "text" .leaseTtl "default" 15000) | int64 -}}
leaseTtl: {{ $ttl }}
keepaliveInterval: {{ include "bellwether.milliseconds" (dict "text" .keepaliveInterval "default" (div $ttl 3)) }}
attemptTimeout: {{ include "bellwether.milliseconds" (dict "text" .attemptTimeout "default" (min (div $ttl 6) 3000)) }}
safetyMargin: {{ include "bellwether.milliseconds" (dict "text" .safetyMargin "default" (max (div $ttl 5) 500)) }}
answerValidity: {{ include "bellwether.milliseconds" (dict "text" .answerValidity "default" 1000) }}
drainTimeout: {{ include "bellwether.milliseconds" (dict "text" .drainTimeout "default" 10000) }}
{{- end }}
