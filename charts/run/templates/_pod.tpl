{{- /* Parts that every pod of a run shares. Lists leave room for further items. */ -}}

{{- define "run.podSecurity" -}}
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
restartPolicy: Never
securityContext:
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  runAsGroup: 10001
  runAsNonRoot: true
  runAsUser: 10001
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "run.containerSecurity" -}}
imagePullPolicy: IfNotPresent
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
  readOnlyRootFilesystem: true
terminationMessagePath: /dev/termination-log
terminationMessagePolicy: File
{{- end }}

{{- define "run.environment" -}}
- name: HOME
  value: /scratch/home
- name: TMPDIR
  value: /scratch/tmp
- name: XDG_STATE_HOME
  value: /scratch/state
- name: PYTHONHASHSEED
  value: "0"
- name: PYTHONUNBUFFERED
  value: "1"
- name: TUNEYARD_TERMINATION_LOG
  value: /dev/termination-log
{{- if .Values.store.credentials }}
- name: TUNEYARD_STORE_CREDENTIALS
  value: /var/run/secrets/tuneyard/store
{{- end }}
{{- if .Values.certificateAuthorityConfigMap }}
{{- range list "AWS_CA_BUNDLE" "CURL_CA_BUNDLE" "PIP_CERT" "REQUESTS_CA_BUNDLE" "SSL_CERT_FILE" }}
- name: {{ . }}
  value: /etc/tuneyard-ca/ca.crt
{{- end }}
{{- end }}
{{- end }}

{{- define "run.mounts" -}}
- name: plan
  mountPath: /etc/tuneyard
  readOnly: true
- name: scratch
  mountPath: /scratch
- name: tmp
  mountPath: /tmp
{{- if .Values.store.credentials }}
- name: store-credentials
  mountPath: /var/run/secrets/tuneyard/store
  readOnly: true
{{- end }}
{{- if .Values.certificateAuthorityConfigMap }}
- name: certificate-authority
  mountPath: /etc/tuneyard-ca
  readOnly: true
{{- end }}
{{- end }}

{{- define "run.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: 1Gi
{{- with .Values.store.credentials }}
- name: store-credentials
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ .accessKey.secret | quote }}
          items:
            - key: {{ .accessKey.key | quote }}
              path: access_key
      - secret:
          name: {{ .secretKey.secret | quote }}
          items:
            - key: {{ .secretKey.key | quote }}
              path: secret_key
{{- end }}
{{- with .Values.certificateAuthorityConfigMap }}
- name: certificate-authority
  configMap:
    name: {{ . | quote }}
    items:
      - key: ca.crt
        path: ca.crt
{{- end }}
{{- end }}
