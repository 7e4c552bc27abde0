{{- define "headrace.name" -}}
{{- if contains .Chart.Name .Release.Name -}}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{- else -}}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{- end -}}
{{- end -}}

{{- define "headrace.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "headrace.labels" -}}
{{ include "headrace.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* The app's name in Kafka: prefix of topics and groups. */}}
{{- define "headrace.app" -}}
{{- dig "app" "name" "headrace" .Values.settings -}}
{{- end -}}

{{/* A kubelet asks one port; of several workers, all are asked from inside: ready when all are, live when none hangs. */}}
{{- define "headrace.probe" -}}
{{- if gt (int .workers) 1 -}}
exec:
  command: [python, -m, headrace.service.cli.probe, {{ .path }}, "9464", {{ .workers | quote }}]
{{- else -}}
httpGet:
  path: /{{ .path }}
  port: metrics-0
{{- end -}}
{{- end -}}

{{/* A table as TOML. Not toToml: Helm reads 16 as a float and would write 16.0, which is no whole number. */}}
{{- define "headrace.toml" -}}
{{- range $key, $value := .table }}
{{- if not (kindIs "map" $value) }}
{{ toJson $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .table }}
{{- if kindIs "map" $value }}
{{- $path := append $.path (toJson $key) }}
[{{ join "." $path }}]
{{- include "headrace.toml" (dict "path" $path "table" $value) }}
{{- end }}
{{- end }}
{{- end -}}
