# A JupyterHub single-user image with the book in it; also what repo2docker builds for Binder.
#   docker build -t scprimer .
#   docker run -p 8888:8888 scprimer            a JupyterLab of one's own
# In JupyterHub (KubeSpawner, DockerSpawner) name this image as the single-user image: it starts `jupyterhub-singleuser`.
FROM python:3.12-slim

RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends git make gcc g++ \
    && rm -rf /var/lib/apt/lists/*

ARG NB_USER=jovyan
ARG NB_UID=1000
ENV HOME=/home/${NB_USER} PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN useradd --create-home --uid ${NB_UID} ${NB_USER}

# Not below the home: a hub mounts each user's own disk there, and what the image holds in that place is hidden.
WORKDIR /opt/scprimer
COPY . .
# The version of your hub, where it is not the pinned one.
ARG JUPYTERHUB_VERSION=
RUN pip install --constraint constraints.txt torch \
    && pip install --constraint constraints.txt --editable ".[reference,run,teach,hub]" \
    && if [ -n "${JUPYTERHUB_VERSION}" ]; then pip install "jupyterhub==${JUPYTERHUB_VERSION}"; fi \
    && chown -R ${NB_USER}:${NB_USER} ${HOME} /opt/scprimer

USER ${NB_USER}
EXPOSE 8888
CMD ["sh", "-c", "if [ -n \"$JUPYTERHUB_API_TOKEN\" ]; then cd \"$HOME\" && exec jupyterhub-singleuser --ip=0.0.0.0; else exec jupyter lab --ip=0.0.0.0 --no-browser; fi"]
