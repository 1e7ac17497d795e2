{{/* Items of the pod's `volumes`: the token, etcd's certificates and password, the state. Only the sidecar mounts them. */}}
{{- define "bellwether.volumes" -}}
{{- $settings := include "bellwether.settings" . | fromYaml -}}
{{- if $settings.labelled -}}
{{ include "bellwether.tokenVolume" . }}
{{ end -}}
{{- with include "bellwether.etcdVolumes" . -}}
{{ . }}
{{ end -}}
{{- if .config.stateDir.enabled -}}
- name: bellwether-state
  # In memory: no disk that stalls, and nothing that outlives the pod, whose name is the identity.
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- end -}}
{{- end }}

{{- define "bellwether.tokenVolume" -}}
- name: bellwether-token
  projected:
    # Readable by all that see it, and that is the sidecar alone. With 0440 the sidecar could read it only through the pod's
    # fsGroup, which would change the owner of the application's volumes, too.
    defaultMode: 0444
    sources:
      - serviceAccountToken:
          path: token
          # Not the usual 3607: API servers take that number for an old client's and make the token good for a year.
          expirationSeconds: 3600
      - configMap:
          name: kube-root-ca.crt
          items: [{key: ca.crt, path: ca.crt}]
      - downwardAPI:
          items: [{path: namespace, fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}]
{{- end }}

{{/* One volume for all of etcd's files: rotated Secrets show up in it, and the sidecar looks every ten seconds. */}}
{{- define "bellwether.etcdVolumes" -}}
{{- $sources := include "bellwether.etcdFileSources" . | fromYamlArray -}}
{{- if $sources -}}
- name: bellwether-etcd
  projected:
    # See the token's: nobody but the sidecar mounts this volume.
    defaultMode: 0444
    sources:
      {{- toYaml $sources | nindent 6 }}
{{- end -}}
{{- end }}

{{- define "bellwether.etcdFileSources" -}}
{{- $ca := .config.etcd.tls.ca -}}
{{- $client := .config.etcd.tls.client -}}
{{- $auth := .config.etcd.auth -}}
{{- $sources := list -}}
{{- with $ca.existingSecret -}}
  {{- $sources = append $sources (dict "secret" (dict "name" . "items" (list (dict "key" $ca.key "path" "ca.crt")))) -}}
{{- end -}}
{{- with $ca.existingConfigMap -}}
  {{- $sources = append $sources (dict "configMap" (dict "name" . "items" (list (dict "key" $ca.key "path" "ca.crt")))) -}}
{{- end -}}
{{- with $client.existingSecret -}}
  {{- $items := list (dict "key" $client.certKey "path" "tls.crt") (dict "key" $client.keyKey "path" "tls.key") -}}
  {{- $sources = append $sources (dict "secret" (dict "name" . "items" $items)) -}}
{{- end -}}
{{- with $auth.existingSecret -}}
  {{- $sources = append $sources (dict "secret" (dict "name" . "items" (list (dict "key" $auth.passwordKey "path" "password")))) -}}
{{- end -}}
{{- toYaml $sources -}}
{{- end }}

{{/* What the sidecar mounts. Takes a list of the arguments and the settings. */}}
{{- define "bellwether.mounts" -}}
{{- $mounts := include "bellwether.etcdMounts" (index . 0) | fromYamlArray -}}
{{- if (index . 1).labelled -}}
  {{- $mounts = prepend $mounts (dict "name" "bellwether-token" "mountPath" "/var/run/secrets/kubernetes.io/serviceaccount" "readOnly" true) -}}
{{- end -}}
{{- if (index . 0).config.stateDir.enabled -}}
  {{- $mounts = append $mounts (dict "name" "bellwether-state" "mountPath" (include "bellwether.stateDir" .)) -}}
{{- end -}}
{{- toYaml $mounts -}}
{{- end }}

{{/* Where the state is mounted: not /run/bellwether, where a socket that the application shares may be. */}}
{{- define "bellwether.stateDir" -}}
/run/bellwether-state
{{- end }}

{{- define "bellwether.etcdMounts" -}}
{{- if include "bellwether.etcdFileSources" . | fromYamlArray -}}
- name: bellwether-etcd
  mountPath: /etc/bellwether/etcd
  readOnly: true
{{- end -}}
{{- end }}
