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

WORKDIR ${HOME}/scprimer
COPY . .
RUN pip install --constraint constraints.txt torch \
    && pip install --constraint constraints.txt --editable ".[reference,run,teach,hub]" \
    && chown -R ${NB_USER}:${NB_USER} ${HOME}

USER ${NB_USER}
EXPOSE 8888
CMD ["sh", "-c", "if [ -n \"$JUPYTERHUB_API_TOKEN\" ]; then exec jupyterhub-singleuser --ip=0.0.0.0; else exec jupyter lab --ip=0.0.0.0 --no-browser; fi"]
