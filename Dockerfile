# The images of peacemaker: --target agent and --target operator.
#
# They hold Debian's Python, the locked packages and the product: no shell, no package manager.
# Debian's packages are unpacked beside the build's own system, so that nothing has to be removed.
#
#   BASE_IMAGE  Debian 12, where the build runs; nothing of it is in the images
#   VERSION     what org.opencontainers.image.version says: the product's version
#   REVISION    what org.opencontainers.image.revision says: the commit
#
# A machine that reaches its package index in a way of its own passes it as secrets, which leave no
# trace in the images: --secret id=pip,src=pip.conf and, for a CA of its own, --secret id=ca,src=ca.pem
# (which pip.conf calls /run/secrets/ca).

ARG BASE_IMAGE=debian:bookworm-slim

# ---- the tools of the build in /tools, and in /runtime Debian's Python as a tree of its own

FROM ${BASE_IMAGE} AS tools
ENV PIP_CONFIG_FILE=/run/secrets/pip PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY tools/image/requirements.txt tools/image/inside/debian.sh /tools/
RUN --mount=type=secret,id=pip --mount=type=secret,id=ca \
    apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3.11-venv \
 && python3.11 -m venv /tools/venv \
 && /tools/venv/bin/pip install --require-hashes --only-binary :all: -r /tools/requirements.txt \
 && sh /tools/debian.sh /runtime \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*

# ---- the locked packages, in a virtual environment

FROM tools AS agent-packages
COPY requirements/agent.txt tools/image/inside/packages.sh /tools/
RUN --mount=type=secret,id=pip --mount=type=secret,id=ca sh /tools/packages.sh agent

FROM tools AS operator-packages
COPY requirements/operator.txt tools/image/inside/packages.sh /tools/
RUN --mount=type=secret,id=pip --mount=type=secret,id=ca sh /tools/packages.sh operator

# ---- the product, which changes most, and the bill of materials

FROM tools AS product
COPY . /product/source
RUN /tools/venv/bin/pip wheel --no-deps --no-build-isolation --no-index \
      --wheel-dir /product/wheel /product/source \
 && cp -r /runtime/var/lib/dpkg/status.d /product/debian

FROM agent-packages AS agent-product
COPY --from=product /product /product
RUN sh /product/source/tools/image/inside/product.sh agent

FROM operator-packages AS operator-product
COPY --from=product /product /product
RUN sh /product/source/tools/image/inside/product.sh operator

# ---- the images: their first layer is common to both

FROM scratch AS python
# The root file system is read-only, and byte-code was made in the build.
ENV PATH=/opt/peacemaker/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONUTF8=1
COPY --from=tools /runtime /

FROM python AS agent
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="peacemaker-agent" \
      org.opencontainers.image.description="Keeps the CPU peace between the virtual machines of a KubeVirt node" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# It writes nices and weights of other users' processes, with SYS_NICE as its only capability.
USER 0:0
ENTRYPOINT ["/opt/peacemaker/bin/peacemaker-agent"]
CMD ["--help"]
COPY --from=agent-product /image /

FROM python AS operator
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="peacemaker-operator" \
      org.opencontainers.image.description="Makes of policies what the agents on KubeVirt nodes have to do" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 65532:65532
ENTRYPOINT ["/opt/peacemaker/bin/peacemaker-operator"]
CMD ["--help"]
COPY --from=operator-product /image /
