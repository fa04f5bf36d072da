# ComfyUI 0.3.64 with StoryDiffusion, as one process that is not root and needs no network once it runs.
# The base is a published image of ComfyUI on PyTorch that starts nothing else; docs/adr/0011 says why this one.
FROM ghcr.io/saladtechnologies/comfyui-api:comfy0.3.64-torch2.8.0-cuda12.8-runtime

SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ENV COMFYUI_HOME=/opt/ComfyUI \
    COMFYUI_DATA=/data \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

WORKDIR /opt/comfyfleet
COPY provisioning.sh warmup.json ./
COPY containers/models.txt containers/storydiffusion.txt containers/start-comfyui containers/warm_up.py ./containers/

# The manager would let whoever reaches the port install code. pip here is ComfyUI's own: the base has no other.
# The start in between shows that every node imports: an image whose stories cannot run is not built.
RUN rm -rf "$COMFYUI_HOME/custom_nodes/ComfyUI-Manager" \
 && COMFYUI_VENV_PIP="$(command -v pip)" ./provisioning.sh nodes \
 && python "$COMFYUI_HOME/main.py" --cpu --quick-test-for-ci 2>&1 | tee /tmp/start.log \
 && ! grep 'IMPORT FAILED' /tmp/start.log \
 && rm -rf /tmp/start.log "$COMFYUI_HOME/user" \
 && useradd --uid 10002 --home-dir /data --no-create-home --shell /usr/sbin/nologin comfyui \
 && install -d -o comfyui -g comfyui /data \
 && chown -R comfyui:comfyui "$COMFYUI_HOME/models"

ENV HOME=/data \
    HF_HUB_OFFLINE=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10002:10002
EXPOSE 8188
# Healthy: it has made a picture, and it answers. Ten minutes are for the first load of a model from a slow disk.
HEALTHCHECK --interval=15s --timeout=10s --start-period=10m --retries=3 \
    CMD ["bash", "-c", "test -e \"$COMFYUI_DATA/warm\" && curl --silent --fail http://127.0.0.1:8188/prompt"]
ENTRYPOINT ["/opt/comfyfleet/containers/start-comfyui"]
