{{/* What the values come to: names and defaults filled in, as YAML for fromYaml. What contradicts itself ends the rendering. */}}
{{- define "bellwether.settings" -}}
{{- include "bellwether.checkArguments" . -}}
{{- include "bellwether.failOn" (include "bellwether.faults" . | fromYamlArray) -}}
{{- include "bellwether.uncheckedSettings" . -}}
{{- end }}

{{/*
What does not go together in the values, as a list of sentences. The schema has seen to types and spellings before; here is what
takes two values or the cluster to see.
*/}}
{{- define "bellwether.faults" -}}
{{- $both := list . (include "bellwether.uncheckedSettings" . | fromYaml) -}}
{{- $faults := list -}}
{{- range $kind := list "election" "etcd" "timing" "sidecar" -}}
  {{- $faults = concat $faults (include (printf "bellwether.%sFaults" $kind) $both | fromYamlArray) -}}
{{- end -}}
{{- toYaml $faults -}}
{{- end }}

{{- define "bellwether.uncheckedSettings" -}}
{{- $config := .config -}}
{{- $version := .root.Capabilities.KubeVersion.Version -}}
{{- $label := $config.label -}}
{{- $preset := get (include "bellwether.presets" . | fromYaml) $label.preset -}}
{{- $settings := dict
  "name" (include "bellwether.name" .)
  "namespace" .root.Release.Namespace
  "election" ($config.election.name | default (include "bellwether.name" .))
  "container" $config.sidecar.name
  "serviceAccount" (include "bellwether.serviceAccountName" .)
  "labelled" $label.enabled
  "electionKey" $label.electionKey
  "termKey" $label.termAnnotationKey
  "key" ($label.key | default $preset.key)
  "leader" ($label.leader | default $preset.leader)
  "follower" (kindIs "string" $label.follower | ternary $label.follower $preset.follower)
  "tls" (hasPrefix "https://" (lower (first $config.etcd.endpoints | default "")))
  "native" (eq $config.sidecar.mode "native" | or (and (eq $config.sidecar.mode "auto") (semverCompare ">=1.29-0" $version)))
  "timings" (include "bellwether.timings" $config.timings | fromYaml)
  "apiPorts" (include "bellwether.apiPorts" . | fromYamlArray)
-}}
{{- $drainSeconds := div (add (int64 $settings.timings.drainTimeout) 999) 1000 -}}
{{- $_ := set $settings "releaseSeconds" (add $drainSeconds 5) -}}
{{- $grace := $config.terminationGracePeriodSeconds -}}
{{- $_ := set $settings "graceSeconds" (ternary (add $settings.releaseSeconds 15) $grace (kindIs "invalid" $grace)) -}}
{{- toYaml $settings -}}
{{- end }}

{{/* Ends the rendering with a list of faults, unless it is empty. */}}
{{- define "bellwether.failOn" -}}
{{- if . -}}
  {{- fail (printf "\n\nThese values do not go together:\n  * %s\n" (join "\n  * " .)) -}}
{{- end -}}
{{- end }}

{{/* A caller's mistakes, told in words instead of a nil pointer somewhere below. */}}
{{- define "bellwether.checkArguments" -}}
{{- if not (and (kindIs "map" .) (hasKey . "root") (hasKey . "config")) -}}
  {{- fail "bellwether-lib: give one dict, as in: include \"bellwether.volumes\" (dict \"root\" $ \"config\" .Values.bellwether)" -}}
{{- end -}}
{{- if not (kindIs "map" .config) -}}
  {{- fail "bellwether-lib: \"config\" is empty. Give the dependency `alias: bellwether` in Chart.yaml and pass .Values.bellwether" -}}
{{- end -}}
{{- range $key := list "image" "election" "etcd" "timings" "label" "http" "telemetry" "appHealth" "stateDir" "log" "sidecar" "serviceAccount" "rbac" "admissionPolicy" "service" "metrics" -}}
  {{- if not (kindIs "map" (get $.config $key)) -}}
    {{- fail (printf "bellwether-lib: \"config\" lacks %q. Pass all values of the dependency (.Values.bellwether), which have their defaults" $key) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* The TCP ports of the local API. */}}
{{- define "bellwether.apiPorts" -}}
{{- $ports := list -}}
{{- range .config.http.listen -}}
  {{- if not (hasPrefix "unix:" .) -}}
    {{- $ports = append $ports (regexFind "[0-9]+$" . | int) -}}
  {{- end -}}
{{- else -}}
  {{- $ports = list 4040 -}}
{{- end -}}
{{- $ports | uniq | toYaml -}}
{{- end }}

{{- define "bellwether.electionFaults" -}}
{{- $config := (index . 0).config -}}
{{- $settings := index . 1 -}}
{{- $faults := list -}}
{{- if $settings.labelled -}}
  {{- if eq $settings.leader $settings.follower -}}
    {{- $faults = append $faults (printf "label.leader and label.follower both come to %q: nobody could tell who leads" $settings.leader) -}}
  {{- end -}}
  {{- if eq $settings.key $settings.electionKey -}}
    {{- $faults = append $faults (printf "label.key and label.electionKey are both %q: the role and the election need a label each" $settings.key) -}}
  {{- end -}}
  {{- if and (not $config.serviceAccount.create) (empty $config.serviceAccount.name) -}}
    {{- $faults = append $faults "serviceAccount.create is false and serviceAccount.name is empty: rights and policy would go to the namespace's service account \"default\", and so to every pod; name one" -}}
  {{- end -}}
  {{- if and (not $config.serviceAccount.create) (eq $config.serviceAccount.name "default") -}}
    {{- $faults = append $faults "serviceAccount.name is \"default\": every pod of the namespace would get the rights; name one that is for this election alone" -}}
  {{- end -}}
{{- end -}}
{{- toYaml $faults -}}
{{- end }}

{{- define "bellwether.etcdFaults" -}}
{{- $etcd := (index . 0).config.etcd -}}
{{- $tls := (index . 1).tls -}}
{{- $ca := $etcd.tls.ca -}}
{{- $client := $etcd.tls.client -}}
{{- $auth := $etcd.auth -}}
{{- $faults := list -}}
{{- if empty $etcd.endpoints -}}
  {{- $faults = append $faults "etcd.endpoints is empty: give the URLs of etcd's members, as in [http://etcd.etcd:2379]" -}}
{{- end -}}
{{- range $etcd.endpoints -}}
  {{- if contains "@" . -}}
    {{- $faults = append $faults "etcd.endpoints carries credentials: use etcd.auth, which takes them from a Secret" -}}
  {{- end -}}
  {{- if ne $tls (hasPrefix "https://" (lower .)) -}}
    {{- $faults = append $faults "etcd.endpoints mixes http and https: use one for all, as the certificates apply to all or none" -}}
  {{- end -}}
{{- end -}}
{{- if ne (len $etcd.endpoints) (len (uniq $etcd.endpoints)) -}}
  {{- $faults = append $faults "etcd.endpoints lists a member twice" -}}
{{- end -}}
{{- $authorities := compact (list $ca.existingSecret $ca.existingConfigMap $ca.file) -}}
{{- if gt (len $authorities) 1 -}}
  {{- $faults = append $faults "etcd.tls.ca names more than one of existingSecret, existingConfigMap and file: keep one" -}}
{{- end -}}
{{- if and $tls (empty $authorities) -}}
  {{- $faults = append $faults "etcd.endpoints are https, but etcd.tls.ca names nothing: give the authority that signed etcd's certificates in etcd.tls.ca.existingSecret or existingConfigMap" -}}
{{- end -}}
{{- if and $etcd.endpoints (not $tls) (or $authorities $client.existingSecret $client.certFile $client.keyFile $etcd.tls.serverName) -}}
  {{- $faults = append $faults "etcd.tls is set, but etcd.endpoints are http: write https://, or take etcd.tls out" -}}
{{- end -}}
{{- if ne (empty $client.certFile) (empty $client.keyFile) -}}
  {{- $faults = append $faults "etcd.tls.client.certFile and keyFile go together: one of them is empty" -}}
{{- end -}}
{{- if and $client.existingSecret $client.certFile -}}
  {{- $faults = append $faults "etcd.tls.client names both existingSecret and certFile: keep one" -}}
{{- end -}}
{{- if ne (empty $auth.user) (empty $auth.passwordFile) -}}
  {{- $faults = append $faults "etcd.auth.user and passwordFile go together: one of them is empty" -}}
{{- end -}}
{{- if and $auth.existingSecret $auth.user -}}
  {{- $faults = append $faults "etcd.auth names both existingSecret and user: keep one" -}}
{{- end -}}
{{- toYaml (uniq $faults) -}}
{{- end }}

{{- define "bellwether.timingFaults" -}}
{{- $settings := index . 1 -}}
{{- $timings := $settings.timings -}}
{{- $ttl := int64 $timings.leaseTtl -}}
{{- $faults := list -}}
{{- range $key, $text := (index . 0).config.timings -}}
  {{- if not (regexMatch "^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$" (toString $text)) -}}
    {{- $faults = append $faults (printf "timings.%s is %q: write the largest unit first and each once, as in 1m30s" $key (toString $text)) -}}
  {{- end -}}
{{- end -}}
{{- if or (lt $ttl 2000) (gt $ttl 3600000) (mod $ttl 1000) -}}
  {{- $faults = append $faults (printf "timings.leaseTtl is %s: whole seconds from 2s to 1h" (include "bellwether.span" $ttl)) -}}
{{- end -}}
{{- range $key := list "keepaliveInterval" "attemptTimeout" "safetyMargin" -}}
  {{- if lt (int64 (get $timings $key)) 10 -}}
    {{- $faults = append $faults (printf "timings.%s is %s: at least 10ms" $key (include "bellwether.span" (get $timings $key))) -}}
  {{- end -}}
{{- end -}}
{{- $sum := add (int64 $timings.keepaliveInterval) (mul 2 (int64 $timings.attemptTimeout)) (int64 $timings.safetyMargin) -}}
{{- if gt $sum $ttl -}}
  {{- $faults = append $faults (printf "two attempts at a renewal do not fit into timings.leaseTtl: keepaliveInterval %s + 2 × attemptTimeout %s + safetyMargin %s = %s > %s"
    (include "bellwether.span" $timings.keepaliveInterval) (include "bellwether.span" $timings.attemptTimeout) (include "bellwether.span" $timings.safetyMargin)
    (include "bellwether.span" $sum) (include "bellwether.span" $ttl)) -}}
{{- end -}}
{{- if gt (int64 $timings.answerValidity) (int64 $timings.drainTimeout) -}}
  {{- $faults = append $faults (printf "timings.answerValidity %s > drainTimeout %s: a release waits until the last answer has run out"
    (include "bellwether.span" $timings.answerValidity) (include "bellwether.span" $timings.drainTimeout)) -}}
{{- end -}}
{{- if lt (int64 $settings.graceSeconds) (int64 $settings.releaseSeconds) -}}
  {{- $faults = append $faults (printf "terminationGracePeriodSeconds %d is too short to release the lock: timings.drainTimeout %s + 5s = %ds, and the application needs its time besides; raise it or leave it null"
    (int64 $settings.graceSeconds) (include "bellwether.span" $timings.drainTimeout) (int64 $settings.releaseSeconds)) -}}
{{- end -}}
{{- toYaml $faults -}}
{{- end }}

{{- define "bellwether.sidecarFaults" -}}
{{- $root := (index . 0).root -}}
{{- $config := (index . 0).config -}}
{{- $settings := index . 1 -}}
{{- $faults := list -}}
{{- if and (eq $config.sidecar.mode "native") (semverCompare "<1.28-0" $root.Capabilities.KubeVersion.Version) -}}
  {{- $faults = append $faults (printf "sidecar.mode is native, but Kubernetes %s has no native sidecars: use classic or auto" $root.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- $health := $config.appHealth -}}
{{- if and (empty $health.target) (or $health.interval $health.timeout $health.startGrace) -}}
  {{- $faults = append $faults "appHealth.target is empty, and nobody asks: give it, or take the rest of appHealth out" -}}
{{- end -}}
{{- if and $config.election.neverLead $health.target -}}
  {{- $faults = append $faults "appHealth.target is set, and so is election.neverLead: who never leads has no health that matters; keep one of them" -}}
{{- end -}}
{{- if or (hasPrefix "127." $config.telemetry.host) (eq $config.telemetry.host "[::1]") -}}
  {{- $faults = append $faults (printf "telemetry.host is %s: the kubelet asks by the pod's address, and would restart the sidecar for ever; take 0.0.0.0 or [::]" $config.telemetry.host) -}}
{{- end -}}
{{- range $port := $settings.apiPorts -}}
  {{- if eq (int $port) (int $config.telemetry.port) -}}
    {{- $faults = append $faults (printf "http.listen and telemetry.port are both on port %d: give each its own" (int $port)) -}}
  {{- end -}}
{{- end -}}
{{- $own := list -}}
{{- range include "bellwether.ownEnv" (list (index . 0) $settings) | fromYamlArray -}}
  {{- $own = append $own .name -}}
{{- end -}}
{{- range $config.sidecar.extraEnv -}}
  {{- if has .name $own -}}
    {{- $faults = append $faults (printf "sidecar.extraEnv sets %s, which the chart sets from its own values" .name) -}}
  {{- end -}}
{{- end -}}
{{- toYaml $faults -}}
{{- end }}
