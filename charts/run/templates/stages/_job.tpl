{{- /* One stage's Job, exactly as the conductor creates it. Takes root and stage. */ -}}

{{- define "run.stageJob" -}}
{{- $root := .root }}
{{- $stage := .stage }}
{{- $service := include "run.stageName" . }}
{{- $labels := include "run.stageLabels" . }}
{{- $several := gt (int ($stage.nodes | default 1)) 1 }}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ $service }}-t1
  namespace: {{ $root.Release.Namespace | quote }}
  labels:
    {{- $labels | nindent 4 }}
    {{- with $root.Values.queue }}
    kueue.x-k8s.io/queue-name: {{ . | quote }}
    {{- end }}
spec:
  backoffLimit: 0
  {{- if $several }}
  completionMode: Indexed
  completions: {{ $stage.nodes | int }}
  parallelism: {{ $stage.nodes | int }}
  {{- end }}
  podFailurePolicy:
    rules:
      - action: Ignore
        onPodConditions:
          - type: DisruptionTarget
            status: "True"
  podReplacementPolicy: Failed
  template:
    metadata:
      labels:
        {{- $labels | nindent 8 }}
    spec:
      {{- include "run.podSecurity" $root | nindent 6 }}
      automountServiceAccountToken: false
      {{- with $root.Values.serviceAccount.stages }}
      serviceAccountName: {{ . | quote }}
      {{- end }}
      terminationGracePeriodSeconds: {{ $stage.graceS | int }}
      {{- if $several }}
      subdomain: {{ $service | quote }}
      {{- end }}
      {{- if gt (int ($stage.gpus | default 0)) 0 }}
      nodeSelector:
        nvidia.com/gpu.product: {{ $stage.device | quote }}
      tolerations:
        - key: nvidia.com/gpu
          operator: Exists
          effect: NoSchedule
      {{- end }}
      containers:
        - name: stage
          image: {{ $stage.image | quote }}
          {{- include "run.containerSecurity" $root | nindent 10 }}
          args: {{ list "python" "-m" "jobs" "run" "--plan" "/etc/tuneyard/plan.json" "--stage" $stage.name "--store" $root.Values.store.address "--attempt" ($root.Values.run.attempt | toString) | toJson }}
          env:
            {{- include "run.environment" $root | nindent 12 }}
            {{- include "run.stageEnvironment" . | nindent 12 }}
          resources:
            {{- include "run.stageResources" $stage | nindent 12 }}
          volumeMounts:
            {{- include "run.mounts" $root | nindent 12 }}
            {{- include "run.stageMounts" . | nindent 12 }}
      volumes:
        {{- include "run.volumes" $root | nindent 8 }}
        {{- include "run.stageVolumes" . | nindent 8 }}
{{- end }}

{{- define "run.stageResources" -}}
requests:
  {{- /* A tenth less: a node never has all of its processors to give. */}}
  cpu: {{ printf "%dm" (sub (mul (int .cpus) 1000) 100) | quote }}
  memory: {{ .memoryGib | int }}Gi
  ephemeral-storage: {{ .scratchGib | int }}Gi
  {{- if gt (int (.gpus | default 0)) 0 }}
  nvidia.com/gpu: {{ .gpus | int | toString | quote }}
  {{- end }}
limits:
  memory: {{ .memoryGib | int }}Gi
  ephemeral-storage: {{ .scratchGib | int }}Gi
  {{- if gt (int (.gpus | default 0)) 0 }}
  nvidia.com/gpu: {{ .gpus | int | toString | quote }}
  {{- end }}
{{- end }}
