# Image for the JobManager, the TaskManagers, the client that submits jobs, and the commands of training/.
# The build context is an unpacked release (`make release`): docker build --tag purchase-intent:0.1.0 .

# Flink's distribution and entrypoint, which Kubernetes and compose.yaml use.
FROM flink:2.2.1-scala_2.12-java17 AS flink

# Python packages. Some are source packages, which need the compilers of this larger image.
FROM python:3.11-bookworm AS packages
COPY requirements.txt /tmp/requirements.txt
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes --requirement /tmp/requirements.txt \
    && /opt/venv/bin/pip check

# Based on Python's own image, because Flink's has no Python 3.11.
FROM python:3.11-slim-bookworm
# Debian packages are not pinned: the archive drops a version with the next update.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends default-jre-headless gettext-base libgomp1 procps \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 9999 flink \
    && useradd --uid 9999 --gid flink --create-home flink
COPY --from=flink /docker-entrypoint.sh /docker-entrypoint.sh
COPY --from=flink --chown=flink:flink /opt/flink /opt/flink
COPY --from=packages /opt/venv /opt/venv
# MALLOC_: Python workers keep their buffers instead of returning them after every batch (docs/operations.md). These are
# settings of glibc, so jemalloc is disabled.
ENV FLINK_HOME=/opt/flink \
    JAVA_HOME=/usr/lib/jvm/default-java \
    PATH=/opt/venv/bin:/opt/flink/bin:/usr/local/bin:/usr/bin:/bin \
    DISABLE_JEMALLOC=true \
    MALLOC_MMAP_THRESHOLD_=1073741824 \
    MALLOC_TRIM_THRESHOLD_=1073741824
# The classes of the job's JARs call flink-python, so it must be in the same directory (docs/operations.md).
RUN mv /opt/flink/opt/flink-python-*.jar /opt/flink/lib/ \
    && ln -s /opt/flink/lib/flink-python-*.jar /opt/flink/opt/
COPY --chown=flink:flink jars/ /opt/flink/lib/
COPY wheel/ /opt/intent/wheel/
COPY conf/ /opt/intent/conf/
COPY --chown=flink:flink conf/log4j-console.properties /opt/flink/conf/
# Mount points: a new volume inherits the owner of its directory.
RUN pip install --no-cache-dir --no-deps --no-index /opt/intent/wheel/*.whl \
    && install --directory --owner=flink --group=flink /opt/intent/state /opt/intent/registry
USER 9999:9999
WORKDIR /opt/intent
ENTRYPOINT ["/docker-entrypoint.sh"]
CMD ["help"]
