# Broker, web and worker in one image: they are one package and must be of one version, so there is one thing to build,
# to pull and to upgrade; what a container does is its command. Built from the root of the checkout, which it mirrors.
FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d AS python

FROM python AS built
WORKDIR /opt/comfyfleet
COPY . .
ENV PIP_CONSTRAINT=/opt/comfyfleet/comfyui/containers/constraints.txt
RUN scripts/setup gpu \
 && .venv/bin/python -m pip uninstall --quiet --yes setuptools pip \
 && .venv/bin/python -m compileall -q broker worker web comfyui \
 && chmod -R go=rX .

FROM python
RUN pip uninstall --quiet --yes --root-user-action ignore setuptools wheel pip \
 && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin fleet \
 && for folder in data keys web workers templates; do install -d -o fleet -g fleet -m 0700 /var/lib/comfyfleet/$folder; done
COPY --from=built /opt/comfyfleet /opt/comfyfleet
WORKDIR /opt/comfyfleet
USER 10001:10001
CMD ["scripts/start_broker"]
