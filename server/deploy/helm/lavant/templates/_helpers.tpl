{{- define "lavant.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "lavant.selector" . }}
{{- end }}

{{- define "lavant.selector" -}}
app.kubernetes.io/name: lavant
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "lavant.name" -}}
{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* Not empty if the store is a file, which one replica owns. */}}
{{- define "lavant.sqlite" -}}
{{- if and (not .Values.storeSecret) (hasPrefix "sqlite:" .Values.store) }}true{{ end }}
{{- end }}

{{- /* Names under which HTTP is called, as JSON: those of the service, of the ingress, and further ones. */}}
{{- define "lavant.hosts" -}}
{{- $name := include "lavant.name" . }}
{{- $service := printf "%s.%s" $name .Release.Namespace }}
{{- $hosts := list $name $service (printf "%s.svc" $service) (printf "%s.svc.cluster.local" $service) }}
{{- if .Values.ingress.enabled }}{{ $hosts = append $hosts .Values.ingress.host }}{{ end }}
{{- concat $hosts .Values.httpHosts | toJson }}
{{- end }}
