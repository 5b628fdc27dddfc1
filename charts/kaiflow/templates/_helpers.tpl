{{- define "kaiflow.name" -}}
{{- .Chart.Name -}}
{{- end }}

{{- define "kaiflow.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Of what has no namespace, and of the Lease: a release that looks at one namespace is one of several. */}}
{{- define "kaiflow.scope" -}}
{{- if .Values.namespaced }}{{ printf "-%v" (first .Values.namespaces) }}{{ end }}
{{- end }}

{{- define "kaiflow.selector" -}}
app.kubernetes.io/name: {{ include "kaiflow.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "kaiflow.labels" -}}
app.kubernetes.io/name: {{ include "kaiflow.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: kaiflow
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Arguments: root, name of the image. */}}
{{- define "kaiflow.image" -}}
{{- $image := index .root.Values.images .name -}}
{{- $registry := .root.Values.global.imageRegistry | default .root.Values.images.registry -}}
{{- $repository := printf "%s/%s" $registry $image.repository -}}
{{- if $image.digest }}{{ printf "%s@%s" $repository $image.digest }}{{ else }}{{ printf "%s:%s" $repository ($image.tag | default .root.Chart.AppVersion) }}{{ end }}
{{- end }}
