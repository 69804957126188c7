{{/* The beginning of every name, at most 63 characters with what follows it. */}}
{{- define "changewire.fullname" -}}
{{- $name := .Values.fullnameOverride | default (contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name)) -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* What finds the pods: of this release alone, though another one is in the namespace. */}}
{{- define "changewire.selector" -}}
app.kubernetes.io/name: changewire
app.kubernetes.io/component: relay
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "changewire.labels" -}}
{{ include "changewire.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "changewire.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "changewire.fullname" .) "default") -}}
{{- end -}}

{{- define "changewire.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Not empty where the service speaks HTTPS. */}}
{{- define "changewire.https" -}}
{{- if or (hasKey .Values.secret.files "CHANGEWIRE_TLS_CERT") (hasKey .Values.settings "CHANGEWIRE_TLS_CERT") }}https{{ end -}}
{{- end -}}

{{/* What a probe asks: a list of the path and the chart's root. */}}
{{- define "changewire.ask" -}}
httpGet:
  path: {{ first . }}
  port: http
  {{- if include "changewire.https" (last .) }}
  scheme: HTTPS
  {{- end }}
{{- end -}}
