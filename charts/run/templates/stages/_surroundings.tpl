{{- /* A stage's own environment, mounts and volumes, beside those of every pod. */ -}}

{{- define "run.stageEnvironment" -}}
- name: TUNEYARD_CACHE
  value: {{ if .root.Values.cacheClaim }}/cache{{ else }}/scratch/cache{{ end }}
- name: TUNEYARD_POD
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: TUNEYARD_TRY
  valueFrom:
    fieldRef:
      fieldPath: metadata.labels['tuneyard.dev/try']
{{- if gt (int (.stage.nodes | default 1)) 1 }}
- name: TUNEYARD_NODES
  value: {{ .stage.nodes | int | toString | quote }}
- name: TUNEYARD_RENDEZVOUS_SERVICE
  value: {{ include "run.stageName" . | quote }}
{{- end }}
{{- if .stage.hubToken }}
- name: HF_TOKEN_PATH
  value: /var/run/secrets/tuneyard/hub/token
{{- end }}
{{- if .stage.openaiApiKey }}
- name: {{ .stage.apiKeyFileVariable | default "OPENAI_API_KEY_FILE" }}
  value: /var/run/secrets/tuneyard/openai/api_key
{{- end }}
{{- end }}

{{- define "run.stageMounts" -}}
{{- if .root.Values.cacheClaim }}
- name: cache
  mountPath: /cache
{{- end }}
{{- if .stage.shmMib }}
- name: dshm
  mountPath: /dev/shm
{{- end }}
{{- if .stage.hubToken }}
- name: hub-token
  mountPath: /var/run/secrets/tuneyard/hub
  readOnly: true
{{- end }}
{{- if .stage.openaiApiKey }}
- name: openai-api-key
  mountPath: /var/run/secrets/tuneyard/openai
  readOnly: true
{{- end }}
{{- end }}

{{- define "run.stageVolumes" -}}
- name: plan
  configMap:
    name: {{ include "run.name" .root | quote }}
    items:
      - key: plan.json
        path: plan.json
- name: scratch
  emptyDir:
    sizeLimit: {{ .stage.scratchGib | int }}Gi
{{- with .root.Values.cacheClaim }}
- name: cache
  persistentVolumeClaim:
    claimName: {{ . | quote }}
{{- end }}
{{- with .stage.shmMib }}
- name: dshm
  emptyDir:
    medium: Memory
    sizeLimit: {{ . | int }}Mi
{{- end }}
{{- with .stage.hubToken }}
- name: hub-token
  secret:
    secretName: {{ .secret | quote }}
    defaultMode: 0440
    items:
      - key: {{ .key | quote }}
        path: token
{{- end }}
{{- with .stage.openaiApiKey }}
- name: openai-api-key
  secret:
    secretName: {{ .secret | quote }}
    defaultMode: 0440
    items:
      - key: {{ .key | quote }}
        path: api_key
{{- end }}
{{- end }}
