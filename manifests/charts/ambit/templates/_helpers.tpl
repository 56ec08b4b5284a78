{{/* Image of a program: (list . "ztunnel"). */}}
{{- define "ambit.image" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}
{{- $image := $root.Values.image -}}
{{- $digest := get $image.digests $name -}}
{{- if $digest -}}
{{ $image.registry }}/ambit-{{ $name }}@{{ $digest }}
{{- else -}}
{{ $image.registry }}/ambit-{{ $name }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Labels of everything: (list . "ztunnel"). */}}
{{- define "ambit.labels" -}}
{{- $root := index . 0 -}}{{- $name := index . 1 -}}
{{ include "ambit.selector" . }}
app.kubernetes.io/part-of: ambit
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
{{- end -}}

{{/* What a selector says, which can never change. */}}
{{- define "ambit.selector" -}}
app.kubernetes.io/name: ambit-{{ index . 1 }}
{{- end -}}

{{/* Labels of pods: they are not captured by the mesh that they make. */}}
{{- define "ambit.podLabels" -}}
{{ include "ambit.labels" . }}
ambit-mesh.io/dataplane-mode: none
{{- end -}}

{{/* Where nodes and waypoints find the control plane, and by what name it is certified. */}}
{{- define "ambit.xdsAddress" -}}
{{- .Values.controlplane.externalAddress | default (printf "%s:15012" (include "ambit.serverName" .)) -}}
{{- end -}}
{{- define "ambit.serverName" -}}
{{- if .Values.controlplane.externalAddress -}}
{{- regexReplaceAll ":[0-9]+$" .Values.controlplane.externalAddress "" -}}
{{- else -}}
ambit-controlplane.{{ .Release.Namespace }}.svc
{{- end -}}
{{- end -}}

{{/* Arguments of whoever speaks to the control plane. */}}
{{- define "ambit.xdsArgs" -}}
- --xds-address={{ include "ambit.xdsAddress" . }}
- --xds-server-name={{ include "ambit.serverName" . }}
- --xds-root=/run/secrets/ambit/root-cert.pem
- --token-file=/run/secrets/ambit/token
- --cluster-id={{ .Values.mesh.clusterID }}
{{- end -}}

{{- define "ambit.logArgs" -}}
- --log-level={{ .Values.log.level }}
- --log-format={{ .Values.log.format }}
{{- end -}}

{{/* The token that proves a pod to the control plane, beside the roots that prove the control plane. */}}
{{- define "ambit.secrets" -}}
- name: ambit
  projected:
    defaultMode: 0400
    sources:
      - serviceAccountToken: {path: token, audience: ambit-mesh.io, expirationSeconds: 3600}
      - configMap: {name: ambit-root-cert, items: [{key: root-cert.pem, path: root-cert.pem}]}
{{- end -}}

{{- define "ambit.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "ambit.nodeName" -}}
- {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
{{- end -}}

{{/* Seconds of a duration such as 25s, 2m or 1h. */}}
{{- define "ambit.seconds" -}}
{{- $n := regexFind "^[0-9]+" . | int -}}
{{- if hasSuffix "h" . -}}{{ mul $n 3600 }}{{- else if hasSuffix "m" . -}}{{ mul $n 60 }}{{- else -}}{{ $n }}{{- end -}}
{{- end -}}

{{/* Secret of an authority that is not the mesh's own; empty if there is none. */}}
{{- define "ambit.cacerts" -}}
{{- if and .Values.ca.existingSecret .Values.ca.certManager.issuer }}
{{- fail "ca.existingSecret and ca.certManager.issuer exclude each other: leave one of them empty" }}
{{- end }}
{{- if .Values.ca.certManager.issuer }}ambit-issuing-ca{{ else }}{{ .Values.ca.existingSecret }}{{ end }}
{{- end }}
