{{/* Labels of all objects: (list $ COMPONENT); an empty COMPONENT is the whole of them. */}}
{{- define "peacemaker.labels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: peacemaker
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
app.kubernetes.io/part-of: peacemaker
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* What selects the pods of a component; it can never be changed. */}}
{{- define "peacemaker.selector" -}}
app.kubernetes.io/name: peacemaker
app.kubernetes.io/component: {{ . }}
{{- end }}

{{/* The name of an image: (list $ OPERATOR-OR-AGENT-VALUES). */}}
{{- define "peacemaker.image" -}}
{{- $common := (index . 0).Values.image -}}
{{- $own := (index . 1).image -}}
{{- with $common.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $own.repository -}}
{{- if $own.digest }}@{{ $own.digest }}{{ else }}:{{ $common.tag | default (index . 0).Chart.AppVersion }}{{ end -}}
{{- end }}

{{/* What every container has: no privilege at all. */}}
{{- define "peacemaker.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* What every pod of the operator's image has: an ordinary user. */}}
{{- define "peacemaker.nonroot" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* What the objects that a hook needs share: (list $ COMPONENT HOOK). They go with the hook. */}}
{{- define "peacemaker.hookMetadata" -}}
name: peacemaker-{{ index . 1 }}
labels:
  {{- include "peacemaker.labels" . | nindent 2 }}
annotations:
  helm.sh/hook: {{ index . 2 }}
  helm.sh/hook-weight: "-5"
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
{{- end }}
