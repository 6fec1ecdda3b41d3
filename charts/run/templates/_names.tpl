{{- /* Names and labels, by which the objects refer to each other. */ -}}

{{- define "run.name" -}}
{{ .Values.run.id }}-{{ .Values.run.manifest }}
{{- end }}

{{- define "run.stageName" -}}
{{ .root.Values.run.id }}-{{ .stage.name }}-{{ .root.Values.run.manifest }}
{{- end }}

{{- define "run.labels" -}}
app.kubernetes.io/name: tuneyard
app.kubernetes.io/instance: {{ .root.Values.run.id | quote }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/managed-by: launcher
tuneyard.dev/run: {{ .root.Values.run.id | quote }}
tuneyard.dev/attempt: {{ .root.Values.run.attempt | toString | quote }}
tuneyard.dev/manifest: {{ .root.Values.run.manifest | quote }}
{{- end }}

{{- define "run.stageLabels" -}}
{{ include "run.labels" (dict "root" .root "component" "stage") }}
tuneyard.dev/stage: {{ .stage.name | quote }}
tuneyard.dev/kind: {{ .stage.kind | quote }}
tuneyard.dev/try: "1"
{{- with .stage.egress }}
tuneyard.dev/egress: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "run.stageSelector" -}}
tuneyard.dev/run: {{ .root.Values.run.id | quote }}
tuneyard.dev/stage: {{ .stage.name | quote }}
tuneyard.dev/manifest: {{ .root.Values.run.manifest | quote }}
{{- end }}

{{- define "run.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ include "run.name" . }}{{ else }}{{ .Values.serviceAccount.name }}{{ end }}
{{- end }}
