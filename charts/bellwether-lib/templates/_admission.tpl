{{/*
RBAC knows verbs and kinds, not fields: "patch pods" includes the image of every pod in the namespace. This policy says the rest.
Empty where it is off or the cluster does not have the kind.
*/}}
{{- define "bellwether.admissionPolicy" -}}
{{- $has := include "bellwether.has" (dict "root" .root "kind" "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" "since" "1.30") -}}
{{- if and .config.label.enabled .config.admissionPolicy.enabled $has -}}
{{- $settings := include "bellwether.settings" . | fromYaml -}}
{{- /* No two namespaces or releases make the same name: neither contains a dot. */ -}}
{{- $name := printf "%s.%s.bellwether.dev" $settings.name $settings.namespace -}}
{{- $role := printf "'%s'" $settings.key -}}
{{- $election := printf "'%s'" $settings.electionKey -}}
{{- $term := printf "'%s'" $settings.termKey -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: {{ $name }}
  labels:
    {{- include "bellwether.labels" . | nindent 4 }}
spec:
  failurePolicy: Fail
  matchConstraints:
    # A patch is an UPDATE here. Other operations and the sub-resources need rights that the sidecar's Role does not give.
    resourceRules:
      - apiGroups: [""]
        apiVersions: [v1]
        operations: [UPDATE]
        resources: [pods]
        scope: Namespaced
    # Nothing that happens in other namespaces is looked at, or could be held up.
    namespaceSelector:
      matchLabels:
        kubernetes.io/metadata.name: {{ $settings.namespace }}
  matchConditions:
    - name: asked-by-the-sidecar
      expression: request.userInfo.username == 'system:serviceaccount:{{ $settings.namespace }}:{{ $settings.serviceAccount }}'
  variables:
    # Who asks: the pod that the token is bound to. A token made by hand, or from a Secret, is bound to none.
    - name: extra
      expression: "has(request.userInfo.extra) ? request.userInfo.extra : {}"
    - name: podName
      expression: >-
        'authentication.kubernetes.io/pod-name' in variables.extra ? variables.extra['authentication.kubernetes.io/pod-name'][0] : ''
    - name: podUid
      expression: >-
        'authentication.kubernetes.io/pod-uid' in variables.extra ? variables.extra['authentication.kubernetes.io/pod-uid'][0] : ''
    # Name and uid: the next pod of a StatefulSet has the same name.
    - name: own
      expression: >-
        variables.podName != '' && object.metadata.name == variables.podName && object.metadata.uid == variables.podUid
    - name: labelsBefore
      expression: "has(oldObject.metadata.labels) ? oldObject.metadata.labels : {}"
    - name: labelsAfter
      expression: "has(object.metadata.labels) ? object.metadata.labels : {}"
    - name: annotationsBefore
      expression: "has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {}"
    - name: annotationsAfter
      expression: "has(object.metadata.annotations) ? object.metadata.annotations : {}"
  # A refusal is a 422 (Invalid), and so not mistaken for missing rights, which are a 403.
  validations:
    - expression: variables.podName != '' && variables.podUid != ''
      message: only a token that is bound to a pod may change pods, and this one is not
    - expression: >-
        ({{ $election }} in variables.labelsBefore && variables.labelsBefore[{{ $election }}] == '{{ $settings.election }}')
        || (variables.own && !({{ $election }} in variables.labelsBefore))
      message: this pod is not of the election {{ $settings.election }}
    - expression: >-
        {{ $election }} in variables.labelsAfter && variables.labelsAfter[{{ $election }}] == '{{ $settings.election }}'
      message: the label {{ $settings.electionKey }} must say {{ $settings.election }}
    # On another pod the role may go away, or stay while it is not the leader's: the predecessor is given the new term.
    - expression: >-
        !({{ $role }} in variables.labelsAfter)
        || (variables.own && variables.labelsAfter[{{ $role }}] in [{{ printf "'%s'" $settings.leader }}
        {{- with $settings.follower }}, {{ printf "'%s'" . }}{{ end }}])
        || ({{ $role }} in variables.labelsBefore && variables.labelsBefore[{{ $role }}] == variables.labelsAfter[{{ $role }}]
        && variables.labelsAfter[{{ $role }}] != '{{ $settings.leader }}')
      message: >-
        {{ $settings.key }} may be set on the own pod, to {{ $settings.leader }}{{ with $settings.follower }} or {{ . }}{{ end }}, and
        be taken off others; nothing else
    - expression: >-
        variables.labelsAfter.all(key, key in [{{ $role }}, {{ $election }}]
        || (key in variables.labelsBefore && variables.labelsBefore[key] == variables.labelsAfter[key]))
        && variables.labelsBefore.all(key, key in [{{ $role }}, {{ $election }}] || key in variables.labelsAfter)
      message: of the labels, only {{ $settings.key }} may change
    - expression: >-
        variables.annotationsAfter.all(key, key == {{ $term }}
        || (key in variables.annotationsBefore && variables.annotationsBefore[key] == variables.annotationsAfter[key]))
        && variables.annotationsBefore.all(key, key == {{ $term }} || key in variables.annotationsAfter)
      message: of the annotations, only {{ $settings.termKey }} may change
    # What somebody else has written there stays until the sidecar has a term to write.
    - expression: >-
        !({{ $term }} in variables.annotationsAfter)
        || variables.annotationsAfter[{{ $term }}].matches('^[0-9]{1,20}/[0-9]{1,20}$')
        || ({{ $term }} in variables.annotationsBefore
        && variables.annotationsBefore[{{ $term }}] == variables.annotationsAfter[{{ $term }}])
      message: the annotation {{ $settings.termKey }} may be set to <epoch>/<term>, two numbers
    - expression: >-
        (has(object.metadata.finalizers) ? object.metadata.finalizers : [])
        == (has(oldObject.metadata.finalizers) ? oldObject.metadata.finalizers : [])
      message: finalizers may not change
    - expression: >-
        has(object.metadata.ownerReferences) == has(oldObject.metadata.ownerReferences)
        && (!has(object.metadata.ownerReferences) || object.metadata.ownerReferences == oldObject.metadata.ownerReferences)
      message: owners may not change
    - expression: >-
        (has(object.metadata.generateName) ? object.metadata.generateName : '')
        == (has(oldObject.metadata.generateName) ? oldObject.metadata.generateName : '')
      message: generateName may not change
    - expression: object.spec == oldObject.spec
      message: nothing of the pod's spec may change
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ $name }}
  labels:
    {{- include "bellwether.labels" . | nindent 4 }}
spec:
  policyName: {{ $name }}
  validationActions: [Deny]
{{- end -}}
{{- end }}
